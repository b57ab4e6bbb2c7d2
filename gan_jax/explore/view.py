"""The explorer's page: a picture, and the controls that it follows."""

import base64
import dataclasses
import io
import random
from pathlib import Path
from typing import Any

from nicegui import app, binding, run, ui
from PIL import Image
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gan_jax import UserError
from gan_jax.explore.session import (
  WIDEST,
  Capabilities,
  ControlValues,
  ExplorerSession,
  GeneratorChoice,
)
from gan_jax.sampling.options import SamplingOptions

MODES = {'one': 'One', 'variations': 'Many', 'between': 'Between'}
STYLED = {'one': 'One', 'variations': 'Many', 'mixing': 'Mix', 'between': 'Between'}
LOCAL = ('127.0.0.1', 'localhost', '::1')


@binding.bindable_dataclass
class Controls(ControlValues):
  """A choice that the controls are bound to."""


def serve(desk: ExplorerSession, host: str, port: int, show: bool) -> None:
  """Serves the page until it is interrupted."""
  if host in LOCAL:  # another site's name that is made to point here is refused
    hosts = ['127.0.0.1', 'localhost', '[::1]']
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
  style = (Path(__file__).parent / 'static' / 'explore.css').read_text()

  @ui.page('/', response_timeout=600)  # another generator may have to be opened
  async def index(generator: str = '') -> None:
    ui.colors(primary='#2458c5')
    ui.add_css(style)
    try:
      source = desk.select(generator)
      able = await run.io_bound(desk.abilities, source)
      if able:  # None: the server is being ended
        View(desk, source, able).build()
    except UserError as error:
      ui.label(str(error)).classes('told').props('role=alert id=refused')

  ui.run(
    host=host,
    port=port,
    show=show,
    title=f'{desk.workdir.resolve().name}: explorer',
    dark=None,  # as the browser is
    reload=False,
    show_welcome_message=False,
  )


class View:
  """One open page, on one generator."""

  def __init__(
    self, desk: ExplorerSession, source: GeneratorChoice, able: Capabilities
  ):
    self._desk, self._source, self._able = desk, source, able
    self._choice = Controls(layers=able.cut)
    self._shown: SamplingOptions | None = None
    self._wanted: bool | None = None  # to draw, and whether as a draft
    self._busy = False

  def build(self) -> None:
    """Lays the page out, and has the first picture drawn."""
    with ui.element('div').classes('desk'):
      with ui.element('main').classes('stage'):
        self._stage()
      with ui.element('aside').classes('controls'):
        self._controls()
    ui.timer(0.05, self._redraw, once=True)

  def _stage(self) -> None:
    with ui.element('div').classes('frame'):
      self._image = ui.element('img').props('id=picture alt="what the generator draws"')
    self._told = ui.label().classes('told').props('role=status id=told')
    with ui.element('div').classes('command'):
      self._command = ui.label().classes('words').props('id=command')
      copy = ui.button(icon='content_copy', on_click=self._copy)
      copy.props('flat dense id=copy aria-label="copy the command"')
    ui.label('This command draws exactly this picture.').classes('hint')
    with ui.element('div').classes('saving'):
      self._name = ui.input('File name', value='picture.png')
      self._name.props('dense outlined for=name').on_value_change(self._tell)
      ui.button('Save', on_click=self._save).props('unelevated no-caps id=save')
      download = ui.button('Download', on_click=self._download)
      download.props('outline no-caps id=download')

  def _controls(self) -> None:
    choice, able = self._choice, self._able
    ui.label(self._desk.workdir.resolve().name).classes('title')
    names = [source.name for source in self._desk.sources()]
    if len(names) > 1:
      go = lambda event: ui.navigate.to(f'/?generator={event.value}')
      generator = ui.select(names, value=self._source.name, on_change=go)
      generator.props('dense outlined label=Generator')
    modes = ui.toggle(STYLED if able.styled else MODES, value=choice.mode)
    modes.bind_value(choice, 'mode').on_value_change(self._redraw)
    modes.props('unelevated no-caps spread id=modes')
    with self._group('one', 'variations', 'mixing'):
      self._seed('Seed', 'seed')
    with self._group('mixing'):
      self._seed('Takes styles of seed', 'other')
      with ui.element('div').classes('checks'):
        for name in able.bands:
          box = ui.checkbox(name, value=name in choice.styles)
          box.on_value_change(lambda event, name=name: self._style(name, event.value))
          box.props(f'dense id={name}')
    with self._group('variations'):
      self._slider('Seeds from there on', 'count', 2, 24, 1)
    with self._group('between'):
      pins = ui.input_chips('Pinned seeds', value=[str(pin) for pin in choice.pins])
      pins.props('dense outlined for=pins').on_value_change(self._pin)
      self._chips = pins
      self._where = self._slider('Where between them', 'at', 0, 23, 1)
      self._slider('Frames from one to the next', 'frames', 2, 60, 1)
      film = ui.button('Save the film', on_click=self._film)
      film.props('outline no-caps id=film')
    if able.classes:
      options: dict[Any, str] = {None: "each seed's own"}
      options |= dict(enumerate(able.classes))
      label = ui.select(options, with_input=len(options) > 12)
      label.bind_value(choice, 'label').on_value_change(self._redraw)
      label.props('dense outlined label=Class for=class')
    self._slider('Truncation of z', 'truncation', 0.05, WIDEST, 0.05)
    if able.styled:
      self._slider('Truncation of w, psi', 'psi', 0.0, 1.5, 0.01)
      self._slider('Layers that psi acts on', 'layers', 0, able.layers, 1)
      self._slider('Strength of the noise', 'noise', 0.0, 2.0, 0.05)
    else:
      self._slider('Scale of z, psi', 'psi', 0.05, 1.0, 0.01)

  def _group(self, *modes: str) -> ui.element:
    """A box that is there in these modes."""
    box = ui.element('div').classes('group')
    return box.bind_visibility_from(self._choice, 'mode', lambda mode: mode in modes)

  def _slider(
    self, title: str, name: str, low: float, high: float, step: float
  ) -> ui.slider:
    off = lambda value: name == 'truncation' and value >= WIDEST
    with ui.element('div').classes('slider'):
      with ui.element('div').classes('line'):
        ui.label(title)
        value = ui.label().classes('value')
        value.bind_text_from(
          self._choice, name, lambda x: 'off' if off(x) else f'{x or 0:g}'
        )
      now = getattr(self._choice, name)  # or binding would count as a change
      slider = ui.slider(min=low, max=high, step=step, value=now)
      slider.bind_value(self._choice, name).on_value_change(self._draft)
      slider.props(f'id={name} aria-label="{title}"')
      slider.on('change', self._redraw)  # it is let go
    return slider

  def _seed(self, title: str, name: str) -> None:
    with ui.element('div').classes('seed'):
      now = getattr(self._choice, name)
      number = ui.number(title, value=now, min=0, max=2**32 - 1, precision=0)
      number.bind_value(self._choice, name).on_value_change(self._redraw)
      number.props(f'dense outlined for={name}')
      dice = ui.button(icon='casino', on_click=lambda: self._dice(name))
      dice.props(f'flat dense aria-label="another number: {title}"')
      if name == 'seed':
        pin = ui.button(icon='push_pin', on_click=self._add_pin)
        pin.props('flat dense id=pin aria-label="pin this seed"')

  def _dice(self, name: str) -> None:
    setattr(self._choice, name, random.randrange(100_000))

  async def _style(self, name: str, taken: bool) -> None:
    others = [style for style in self._choice.styles if style != name]
    self._choice.styles = [*others, name] if taken else others
    await self._redraw()

  def _add_pin(self) -> None:
    self._chips.value = [*self._chips.value, str(int(self._choice.seed or 0))]
    ui.notify(f'pinned: {", ".join(self._chips.value)}')

  async def _pin(self) -> None:
    self._choice.pins = [int(x) for x in self._chips.value if str(x).isdecimal()]
    await self._redraw()

  async def _draft(self) -> None:
    await self._draw(True)

  async def _redraw(self) -> None:
    await self._draw(False)

  async def _draw(self, draft: bool) -> None:
    """Draws what the controls say; while one is drawn, only the last call waits."""
    self._wanted = draft
    if self._busy:
      return
    self._busy = True
    try:
      while self._wanted is not None:
        draft, self._wanted = self._wanted, None
        await self._show(draft)
    finally:
      self._busy = False

  async def _show(self, draft: bool) -> None:
    choice = dataclasses.replace(self._choice)
    steps = max(len(choice.pins) - 1, 1) * int(choice.frames or 2)
    self._where.props(f'max={steps - 1}')
    try:
      request = self._desk.shown(self._able, choice, draft)
      png = await run.io_bound(self._desk.draw, self._source, request)
    except UserError as error:
      self._told.set_text(str(error))
      return
    if png is None:  # the server is being ended
      return
    self._shown = request
    self._told.set_text('')
    self._tell()
    with Image.open(io.BytesIO(png)) as picture:
      wide = max(384, 8 * picture.width)
    self._image.style(f'width: {wide}px')
    self._image.props['src'] = f'data:image/png;base64,{base64.b64encode(png).decode()}'

  def _tell(self) -> None:
    """The command of what is shown."""
    if self._shown:
      name = self._name.value or 'picture.png'
      self._command.set_text(self._desk.command(self._source, self._shown, name))

  def _copy(self) -> None:
    ui.clipboard.write(self._command.text)
    ui.notify('copied')

  async def _save(self) -> None:
    if self._shown:
      await self._write(self._shown, self._name.value or 'picture.png')

  async def _film(self) -> None:
    try:
      request = self._desk.request(self._able, self._choice)
    except UserError as error:
      self._told.set_text(str(error))
      return
    await self._write(request, f'{Path(self._name.value or "film").stem}.webp')

  async def _write(self, request: SamplingOptions, name: str) -> None:
    try:
      path = await run.io_bound(self._desk.save, self._source, request, name)
    except UserError as error:
      self._told.set_text(str(error))
      return
    self._told.set_text(f'saved: {path}')

  async def _download(self) -> None:
    if self._shown:
      png = await run.io_bound(self._desk.draw, self._source, self._shown)
      if png:
        ui.download.content(png, Path(self._name.value or 'picture.png').name)
