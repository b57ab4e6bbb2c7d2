"""The page of the explorer: an image, and the controls that it follows."""

import base64
import contextlib
import dataclasses
import io
import random
from pathlib import Path
from typing import Any

from nicegui import app, binding, run, ui
from PIL import Image
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gan_jax import UserError
from gan_jax.explore.controls import (
  MAX_TRUNCATION,
  PHOTOGRAPH_PSI,
  Capabilities,
  ControlValues,
)
from gan_jax.explore.direction_panel import DirectionPanel
from gan_jax.explore.photo_panel import PhotoPanel
from gan_jax.explore.session import ExplorerSession, GeneratorChoice
from gan_jax.sampling.options import MAX_SEED, SamplingOptions
from gan_jax.sampling.planning import n_frames

MODES = {'single': 'Single', 'grid': 'Grid', 'interpolation': 'Interpolate'}
STYLE_MODES = {
  'single': 'Single', 'grid': 'Grid', 'mixing': 'Mix', 'interpolation': 'Interpolate'
}  # fmt: skip
LOCAL_HOSTS = ('127.0.0.1', 'localhost', '::1')
DEFAULT_NAME = 'image.png'
MIN_WIDTH = 384  # CSS pixels of the displayed image
PIXEL_SCALE = 8  # CSS pixels per image pixel


@binding.bindable_dataclass
class BoundValues(ControlValues):
  """Control values that the controls are bound to."""


def serve(session: ExplorerSession, host: str, port: int, open_browser: bool) -> None:
  """Serves the page until the process is interrupted."""
  if host in LOCAL_HOSTS:  # refuses names of other sites that resolve to this address
    hosts = ['127.0.0.1', 'localhost', '[::1]']
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
  app.on_shutdown(session.cancel_projection)  # or the process would wait for its end
  style = (Path(__file__).parent / 'static' / 'explore.css').read_text()

  @ui.page('/', response_timeout=600)  # seconds; another generator may have to load
  async def index(generator: str = '') -> None:
    ui.colors(primary='#2458c5')
    ui.add_css(style)
    try:
      choice = session.select(generator)
      capabilities = await run.io_bound(session.capabilities, choice)
      if capabilities:  # None while the server shuts down
        View(session, choice, capabilities).build()
    except UserError as error:
      ui.label(str(error)).classes('message').props('role=alert id=refused')

  with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C, which uvicorn raises again
    ui.run(
      host=host,
      port=port,
      show=open_browser,
      title=f'{session.workdir.resolve().name}: explorer',
      dark=None,  # as the browser is set
      reload=False,
      show_welcome_message=False,
    )


class View:
  """One open page, which shows one generator."""

  def __init__(
    self, session: ExplorerSession, choice: GeneratorChoice, capabilities: Capabilities
  ):
    self._session, self._choice, self._capabilities = session, choice, capabilities
    self._values = BoundValues(
      truncated_layers=capabilities.truncated_layers, psi=capabilities.psi
    )
    self._directions = DirectionPanel(
      session, choice, self._redraw_draft, self._redraw, self._say
    )
    self._displayed: SamplingOptions | None = None
    self._class: ui.select | None = None
    self._pending: bool | None = None  # a redraw waits: whether it is a draft
    self._busy = False

  def build(self) -> None:
    """Lays out the page and starts the first image."""
    with ui.element('div').classes('layout'):
      with ui.element('main').classes('stage'):
        self._build_stage()
      with ui.element('aside').classes('controls'):
        self._build_controls()
    ui.timer(0.05, self._redraw, once=True)

  def _build_stage(self) -> None:
    with ui.element('div').classes('frame'):
      self._image = ui.element('img').props('id=image alt="sample of the generator"')
    self._message = ui.label().classes('message').props('role=status id=message')
    with ui.element('div').classes('command'):
      self._command = ui.label().classes('command-text').props('id=command')
      copy = ui.button(icon='content_copy', on_click=self._copy_command)
      copy.props('flat dense id=copy aria-label="copy the command"')
    ui.label('This command writes exactly this image.').classes('hint')
    with ui.element('div').classes('saving'):
      self._name = ui.input('File name', value=DEFAULT_NAME)
      self._name.props('dense outlined for=name')
      self._name.on_value_change(self._update_command)
      ui.button('Save', on_click=self._save).props('unelevated no-caps id=save')
      download = ui.button('Download', on_click=self._download)
      download.props('outline no-caps id=download')

  def _build_controls(self) -> None:
    values, capabilities = self._values, self._capabilities
    ui.label(self._session.workdir.resolve().name).classes('title')
    self._add_generator_menu()
    labels = STYLE_MODES if capabilities.style_based else MODES
    modes = ui.toggle(labels, value=values.mode)
    modes.bind_value(values, 'mode').on_value_change(self._redraw)
    modes.props('unelevated no-caps spread id=modes')
    with self._visible_in('single', 'grid', 'mixing'):
      self._seed = self._add_seed('Seed', 'seed')
    with self._visible_in('mixing'):
      self._add_style_controls()
    with self._visible_in('grid'):
      self._add_slider('Number of seeds', 'n_seeds', 2, 24, 1)
    with self._visible_in('interpolation'):
      self._add_interpolation_controls()
    if capabilities.class_names:
      self._add_class_menu()
    self._add_slider('Truncation of z', 'truncation', 0.05, MAX_TRUNCATION, 0.05)
    if capabilities.style_based:
      n_layers = capabilities.n_layers
      self._add_slider('Truncation of w: psi', 'psi', 0.0, 1.5, 0.01)
      self._add_slider('Truncated layers', 'truncated_layers', 0, n_layers, 1)
      self._add_slider('Noise strength', 'noise_strength', 0.0, 2.0, 0.05)
    else:
      self._add_slider('Scale of z: psi', 'psi', 0.05, 1.0, 0.01)
    if capabilities.spaces:  # a checkpoint
      self._add_latents_controls()

  def _add_latents_controls(self) -> None:
    """The controls of photographs and directions."""
    panel = PhotoPanel(
      self._session,
      self._choice,
      self._capabilities,
      self._select_photograph,
      self._say,
    )
    with self._visible_in('single', 'mixing'):
      panel.build()
    try:
      self._directions.build()
    except UserError as error:
      ui.label(str(error)).classes('message').props('role=alert id=no-directions')

  async def _select_photograph(self, name: str) -> None:
    """Displays a photograph; '' displays the seed."""
    self._values.photograph = name
    self._values.psi = PHOTOGRAPH_PSI if name else self._capabilities.psi
    await self._redraw()

  def _add_generator_menu(self) -> None:
    names = [choice.name for choice in self._session.choices()]
    if len(names) > 1:
      load = lambda event: ui.navigate.to(f'/?generator={event.value}')
      menu = ui.select(names, value=self._choice.name, on_change=load)
      menu.props('dense outlined label=Generator')

  def _add_class_menu(self) -> None:
    options: dict[Any, str] = {None: 'drawn from each seed'}
    options |= dict(enumerate(self._capabilities.class_names))
    menu = ui.select(options, with_input=len(options) > 12)
    menu.bind_value(self._values, 'label').on_value_change(self._redraw)
    menu.props('dense outlined label=Class for=class')
    self._class = menu

  def _add_style_controls(self) -> None:
    self._add_seed('Styles of seed', 'style_seed')
    with ui.element('div').classes('checks'):
      for name in self._capabilities.style_ranges:
        box = ui.checkbox(name, value=name in self._values.styles)
        set_style = lambda event, name=name: self._set_style(name, event.value)
        box.on_value_change(set_style).props(f'dense id={name}')

  def _add_interpolation_controls(self) -> None:
    chips = [str(seed) for seed in self._values.pinned_seeds]
    self._pinned = ui.input_chips('Pinned seeds', value=chips)
    self._pinned.props('dense outlined for=pins').on_value_change(self._set_pinned)
    self._frame = self._add_slider('Frame', 'frame', 0, 24, 1)
    self._add_slider('Frames per interval', 'frames', 2, 60, 1)
    loop = ui.checkbox('Loop').bind_value(self._values, 'loop')
    loop.on_value_change(self._redraw).props('dense id=loop')
    save = ui.button('Save animation', on_click=self._save_animation)
    save.props('outline no-caps id=animation')

  def _visible_in(self, *modes: str) -> ui.element:
    """A box that is visible in these modes."""
    box = ui.element('div').classes('group')
    return box.bind_visibility_from(self._values, 'mode', lambda mode: mode in modes)

  def _add_slider(
    self, title: str, name: str, low: float, high: float, step: float
  ) -> ui.slider:
    """A slider for the control value `name`; it draws drafts while it moves."""
    off = lambda value: name == 'truncation' and value >= MAX_TRUNCATION
    with ui.element('div').classes('slider'):
      with ui.element('div').classes('line'):
        ui.label(title)
        number = ui.label().classes('value')
        number.bind_text_from(
          self._values, name, lambda x: 'off' if off(x) else f'{x or 0:g}'
        )
      # The start value keeps the binding from counting as a change.
      start = getattr(self._values, name)
      slider = ui.slider(min=low, max=high, step=step, value=start)
      slider.bind_value(self._values, name).on_value_change(self._redraw_draft)
      slider.props(f'id={name} aria-label="{title}"')
      slider.on('change', self._redraw)  # it was released
    return slider

  def _add_seed(self, title: str, name: str) -> ui.number:
    with ui.element('div').classes('seed'):
      start = getattr(self._values, name)
      number = ui.number(title, value=start, min=0, max=MAX_SEED, precision=0)
      number.bind_value(self._values, name).on_value_change(self._redraw)
      number.props(f'dense outlined for={name}')
      dice = ui.button(icon='casino', on_click=lambda: self._randomize(name))
      dice.props(f'flat dense aria-label="random number: {title}"')
      if name == 'seed':
        pin = ui.button(icon='push_pin', on_click=self._pin_seed)
        pin.props('flat dense id=pin aria-label="pin this seed"')
    return number

  def _randomize(self, name: str) -> None:
    setattr(self._values, name, random.randrange(100_000))

  async def _set_style(self, name: str, selected: bool) -> None:
    others = [style for style in self._values.styles if style != name]
    self._values.styles = [*others, name] if selected else others
    await self._redraw()

  def _pin_seed(self) -> None:
    self._pinned.value = [*self._pinned.value, str(int(self._values.seed or 0))]
    ui.notify(f'pinned: {", ".join(self._pinned.value)}')

  async def _set_pinned(self) -> None:
    seeds = [int(x) for x in self._pinned.value if str(x).isdecimal()]
    self._values.pinned_seeds = seeds
    await self._redraw()

  def _say(self, sentence: str) -> None:
    self._message.set_text(sentence)

  async def _redraw_draft(self) -> None:
    await self._schedule(draft=True)

  async def _redraw(self) -> None:
    await self._schedule(draft=False)

  async def _schedule(self, draft: bool) -> None:
    """Draws the control values. While an image is drawn, only the last call waits."""
    self._pending = draft
    if self._busy:
      return
    self._busy = True
    try:
      while self._pending is not None:
        draft, self._pending = self._pending, None
        await self._display(draft)
    finally:
      self._busy = False

  async def _display(self, draft: bool) -> None:
    """Samples the image of the control values and displays it or an error."""
    values = dataclasses.replace(self._values, strengths=self._directions.strengths)
    last = n_frames(values.pinned_seeds, int(values.frames or 1), values.loop) - 1
    self._frame.props(f'max={last}')
    photograph = bool(values.shown_photograph)
    self._seed.set_enabled(not photograph)
    if self._class:
      self._class.set_enabled(not (photograph and self._capabilities.style_based))
    try:
      options = self._session.displayed_options(self._capabilities, values, draft)
      png = await run.io_bound(self._session.render_png, self._choice, options)
    except UserError as error:
      self._say(str(error))
      return
    if png is None:  # the server shuts down
      return
    self._displayed = options
    self._say('')
    self._update_command()
    with Image.open(io.BytesIO(png)) as image:
      width = max(MIN_WIDTH, PIXEL_SCALE * image.width)
    self._image.style(f'width: {width}px')
    self._image.props['src'] = f'data:image/png;base64,{base64.b64encode(png).decode()}'

  def _file_name(self) -> str:
    return self._name.value or DEFAULT_NAME

  def _update_command(self) -> None:
    """Shows the command line of the displayed image."""
    if self._displayed:
      line = self._session.command_line(
        self._choice, self._displayed, self._file_name()
      )
      self._command.set_text(line)

  def _copy_command(self) -> None:
    ui.clipboard.write(self._command.text)
    ui.notify('copied')

  async def _save(self) -> None:
    if self._displayed:
      await self._write(self._displayed, self._file_name())

  async def _save_animation(self) -> None:
    try:
      values = dataclasses.replace(self._values, strengths=self._directions.strengths)
      options = self._session.sampling_options(self._capabilities, values)
    except UserError as error:
      self._say(str(error))
      return
    await self._write(options, f'{Path(self._file_name()).stem}.webp')

  async def _write(self, options: SamplingOptions, name: str) -> None:
    try:
      path = await run.io_bound(self._session.save, self._choice, options, name)
    except UserError as error:
      self._say(str(error))
      return
    self._say(f'saved: {path}')

  async def _download(self) -> None:
    if self._displayed:
      render = self._session.render_png
      png = await run.io_bound(render, self._choice, self._displayed)
      if png:
        ui.download.content(png, Path(self._file_name()).name)
