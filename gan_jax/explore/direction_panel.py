"""The controls of directions: a slider for each, with a name that can be changed."""

from collections.abc import Awaitable, Callable

from nicegui import run, ui

from gan_jax import UserError
from gan_jax.explore.session import ExplorerSession, GeneratorChoice

MAX_STRENGTH = 5.0
STEP = 0.1
Draw = Callable[[], Awaitable[None]]


class DirectionPanel:
  """Sliders for the first directions of a generator.

  Attributes:
    strengths: of the directions that are not at 0, by name.
  """

  def __init__(
    self,
    session: ExplorerSession,
    choice: GeneratorChoice,
    draw_draft: Draw,
    draw: Draw,
    say: Callable[[str], None],
  ):
    """
    Args:
      draw_draft: while a slider moves.
      say: shows a sentence on the page.
    """
    self._session, self._choice = session, choice
    self._draw_draft, self._draw, self._say = draw_draft, draw, say
    self._names: list[str] = []  # of the sliders
    self._sliders: list[ui.slider] = []

  @property
  def strengths(self) -> dict[str, float]:
    rows = zip(self._names, self._sliders, strict=False)
    return {name: float(slider.value) for name, slider in rows if slider.value}

  def build(self) -> None:
    """
    Raises:
      UserError: the file of the directions cannot be used.
    """
    self._names = self._session.directions(self._choice)
    with ui.expansion('Directions').classes('directions').props('id=directions dense'):
      for i in range(len(self._names)):
        self._sliders.append(self._add_slider(i))
      reset = ui.button('Reset', on_click=self._reset)
      reset.props('flat dense no-caps id=reset')

  def _add_slider(self, i: int) -> ui.slider:
    with ui.element('div').classes('slider'):
      with ui.element('div').classes('line'):
        name = ui.input(value=self._names[i]).props(f'dense borderless for=name{i}')
        name.props(f'aria-label="name of direction {i}"')
        rename = lambda: self._rename(i, name)
        name.on('blur', rename).on('keydown.enter', rename)
        number = ui.label().classes('value')
      slider = ui.slider(min=-MAX_STRENGTH, max=MAX_STRENGTH, step=STEP, value=0.0)
      number.bind_text_from(slider, 'value', lambda x: f'{x or 0:g}')
      slider.on_value_change(self._draw_draft).on('change', self._draw)
      slider.props(f'id=direction{i} aria-label="strength of direction {i}"')
    return slider

  async def _reset(self) -> None:
    for slider in self._sliders:
      slider.value = 0.0
    await self._draw()

  async def _rename(self, i: int, field: ui.input) -> None:
    """Saves the name in the field, or puts the old one back."""
    old, new = self._names[i], (field.value or '').strip()
    if new == old:
      return
    try:
      await run.io_bound(self._session.name_direction, self._choice, old, new)
    except UserError as error:
      self._say(str(error))
      field.value = old
      return
    self._names[i] = new
    ui.notify(f'{new} is in {self._session.directions_file}')
    if self._sliders[i].value:
      await self._draw()
