"""The controls of photographs: opening one, its projection, and the menu of them."""

import base64
from collections.abc import Awaitable, Callable

from nicegui import events, run, ui

from gan_jax import UserError
from gan_jax.evaluation.metrics import lpips
from gan_jax.explore.controls import Capabilities
from gan_jax.explore.photographs import MAX_BYTES, STEPS, CancelledError, Status
from gan_jax.explore.session import ExplorerSession, GeneratorChoice
from gan_jax.project.comparison import LOSSES, PIXELS
from gan_jax.project.options import ProjectOptions

SEED = 'none: the seed'  # in the menu
MAX_STEPS = 10_000
POLL = 0.2  # seconds


class PhotoPanel:
  """Projects photographs one at a time, and selects the one on display."""

  def __init__(
    self,
    session: ExplorerSession,
    choice: GeneratorChoice,
    capabilities: Capabilities,
    select: Callable[[str], Awaitable[None]],
    say: Callable[[str], None],
  ):
    """
    Args:
      select: displays the photograph of this name; '' displays the seed.
      say: shows a sentence on the page.
    """
    self._session, self._choice, self._spaces = session, choice, capabilities.spaces
    self._select, self._say = select, say
    self._status: Status | None = None  # of the projection that is running
    self._targets: dict[str, bytes] = {}  # PNGs of photographs opened on this page

  def build(self) -> None:
    upload = ui.upload(
      label='Open or drop a photograph',
      auto_upload=True,
      max_file_size=MAX_BYTES,
      on_upload=self._open,
      on_rejected=self._reject,
    )
    upload.props('flat bordered accept=image/* id=photograph').classes('upload')
    self._upload = upload
    with ui.element('div').classes('line'):
      steps = ui.number('Steps', value=STEPS, min=1, max=MAX_STEPS, precision=0)
      self._steps = steps.props('dense outlined for=steps')
      spaces = ui.select([*self._spaces], value=self._spaces[0], label='Space')
      self._space = spaces.props('dense outlined for=space')
      spaces.set_visibility(len(self._spaces) > 1)
      loss = LOSSES[0] if lpips.has_weights() else PIXELS.name
      self._loss = ui.select([*LOSSES], value=loss, label='Loss')
      self._loss.props('dense outlined for=loss')
    with ui.element('div').classes('group') as self._running:
      with ui.element('div').classes('line'):
        self._text = ui.label().classes('hint').props('id=progress role=status')
        cancel = ui.button('Cancel', on_click=self._cancel)
        cancel.props('outline dense no-caps id=cancel')
      self._bar = ui.linear_progress(0, show_value=False).props('instant-feedback')
    self._running.set_visibility(False)
    with ui.element('div').classes('pair'):
      self._target = self._add_thumbnail('the photograph', 'target')
      self._preview = self._add_thumbnail('its projection so far', 'preview')
    self._menu = ui.select({'': SEED}, value='', label='Pinned photographs')
    self._menu.props('dense outlined for=pinned')
    self._menu.on_value_change(self._selected)
    self._update_menu()
    self._timer = ui.timer(POLL, self._poll, active=False)
    ui.context.client.on_delete(self._cancel)

  def _add_thumbnail(self, title: str, name: str) -> ui.element:
    image = ui.element('img').props(f'id={name} alt="{title}" title="{title}"')
    image.set_visibility(False)
    return image

  def _update_menu(self) -> None:
    names = self._session.photographs(self._choice)
    self._menu.set_options({'': SEED} | {name: name for name in names})
    self._menu.set_visibility(bool(names))

  async def _open(self, event: events.UploadEventArguments) -> None:
    """Projects an uploaded file, and displays it at the end."""
    content = await event.file.read()
    self._upload.reset()
    if self._status is not None:
      self._say('Another photograph is being projected: wait, or cancel it.')
      return
    status = self._status = Status()
    self._say('')
    self._show(status)
    self._running.set_visibility(True)
    self._timer.activate()
    name = None
    try:
      options = ProjectOptions(
        steps=int(self._steps.value or 0),
        space=self._space.value,
        loss=self._loss.value,
      )
      project = self._session.project
      args = self._choice, event.file.name, content, options, status
      name = await run.io_bound(project, *args)
    except UserError as error:
      self._say(str(error))
    except CancelledError:
      self._say('The projection was cancelled.')
    finally:
      self._status = None
      self._timer.deactivate()
      self._running.set_visibility(False)
    self._set_image(self._preview, b'')
    if name:  # None if the server shuts down
      self._targets[name] = status.target
      self._update_menu()
      self._menu.value = name
      ui.notify(f'pinned: {self._session.photograph_file(name)}')
    else:
      self._set_image(self._target, b'')

  def _reject(self) -> None:
    self._say(f'The file is no image, or has more than {MAX_BYTES >> 20} MB.')

  def _cancel(self) -> None:
    if self._status:
      self._status.cancel()

  def _poll(self) -> None:
    if self._status:
      self._show(self._status)

  def _show(self, status: Status) -> None:
    self._text.set_text(status.text)
    self._bar.set_value(status.share)
    self._set_image(self._target, status.target)
    self._set_image(self._preview, status.preview)

  def _set_image(self, image: ui.element, png: bytes) -> None:
    image.set_visibility(bool(png))
    if png:
      image.props['src'] = f'data:image/png;base64,{base64.b64encode(png).decode()}'

  async def _selected(self) -> None:
    name = self._menu.value or ''
    self._set_image(self._target, self._targets.get(name, b''))
    await self._select(name)
