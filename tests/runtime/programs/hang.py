"""Prints its stacks at SIGUSR1; then hangs, and is ended by its watchdog."""

import os
import signal
import threading
import time

from gan_jax.runtime.watchdog import Watchdog, print_stacks_at_signal


def wait_for_the_signal():
  os.kill(os.getpid(), signal.SIGUSR1)


def another_thread():
  time.sleep(600)


def the_reader():
  time.sleep(600)


print_stacks_at_signal()
wait_for_the_signal()
threading.Thread(target=another_thread, daemon=True).start()
with Watchdog(1, 1) as dog, dog.watch('training') as watched:
  watched.doing = 'reading'
  the_reader()
