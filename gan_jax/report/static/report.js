'use strict';
// The page of one run, or of several side by side. All text of a run goes through
// textContent or attributes; nothing of it is ever parsed as markup.

const story = JSON.parse(document.getElementById('story').textContent);
const runs = story.runs;
const several = runs.length > 1;
const whole = new Intl.NumberFormat('en');

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function section(title, ...children) {
  document.getElementById('main').append(
    make('section', { 'aria-label': title }, make('h2', {}, title), ...children));
}

const color = (i) => getComputedStyle(document.documentElement)
  .getPropertyValue(`--${typeof i === 'number' ? `c${i % 8}` : i}`).trim();

function ago(seconds) {
  if (seconds < 90) return 'a minute ago';
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes ago`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} hours ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

function swatch(i) {
  const node = make('span', { class: 'swatch' });
  node.style.background = `var(--c${i % 8})`;
  return node;
}

// The header of each run.

function head(run, i) {
  const facts = make('dl', { class: 'facts' });
  for (const [name, value] of run.facts)
    facts.append(make('div', {}, make('dt', {}, name), make('dd', {}, value)));
  const fill = make('i');
  fill.style.width = `${100 * run.done}%`;
  const title = make(several ? 'h2' : 'h1', {}, run.name);
  if (several) {
    title.style.margin = '0';
    title.prepend(swatch(i));
  }
  return make('div', { class: 'card' },
    make('div', { class: 'run-head' }, title,
      make('span', { class: `state ${run.mood}` }, run.state)),
    make('div', { class: 'bar', role: 'progressbar', 'aria-label': 'images trained on',
      'aria-valuenow': Math.round(100 * run.done), 'aria-valuemin': 0, 'aria-valuemax': 100 }, fill),
    facts);
}

const header = document.getElementById('header');
if (several) header.append(make('h1', {}, `${runs.length} runs`), make('p'));
header.append(make('div', { class: 'runs' }, ...runs.map(head)));

// Sheets over time: one slider for all runs.

function picture(src, alt) {
  const image = make('img', { src, alt });
  image.addEventListener('load', () =>
    image.classList.toggle('large', image.naturalWidth > image.clientWidth));
  return image;
}

function timeline() {
  const times = [...new Set(runs.flatMap((run) => run.sheets.map((s) => s.images)))]
    .sort((a, b) => a - b);
  if (!times.length) return;
  const slider = make('input', { type: 'range', id: 'time', min: 0, max: times.length - 1,
    step: 1, 'aria-label': 'images trained on' });
  const shown = make('output', { for: 'time', id: 'shown' });
  const play = make('button', { type: 'button', id: 'play' }, 'Play');
  const figures = runs.map((run, i) => {
    const image = picture('data:,', `pictures of ${run.name} from noise that never changes`);
    const missing = make('p', { class: 'missing' }, 'no sheet yet at this time');
    const caption = make('figcaption', {}, ...(several ? [swatch(i), `${run.name}. `] : []), run.caption);
    return { run, image, missing, node: make('figure', { class: 'card sheet' }, image, missing, caption) };
  });
  function show() {
    const now = times[slider.value];
    const res = new Set();
    for (const { run, image, missing } of figures) {
      const sheet = run.sheets.filter((s) => s.images <= now).pop();
      image.hidden = !sheet;
      missing.hidden = Boolean(sheet);
      if (!sheet) continue;
      if (image.getAttribute('src') !== sheet.src) image.src = sheet.src;
      if (sheet.res) res.add(sheet.res);
    }
    const size = res.size === 1 ? `, ${[...res][0]} pixels` : '';
    shown.textContent = `image ${whole.format(now)}${size}`;
    slider.setAttribute('aria-valuetext', shown.textContent);
  }
  let timer = 0;
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = 'Play';
  }
  play.addEventListener('click', () => {
    if (timer) return stop();
    if (Number(slider.value) === times.length - 1) slider.value = 0;
    show();
    play.textContent = 'Pause';
    timer = setInterval(() => {
      if (Number(slider.value) === times.length - 1) return stop();
      slider.value = Number(slider.value) + 1;
      show();
    }, Math.max(120, Math.min(500, 12000 / times.length)));
  });
  slider.addEventListener('input', () => { stop(); show(); });
  slider.value = times.length - 1;
  show();
  section('Pictures over time',
    make('div', { class: 'timeline' }, play, slider, shown),
    make('div', { class: 'runs' }, ...figures.map((f) => f.node)));
}
timeline();

// Curves. One run: a chart for each group of series. Several: one for each series.

function charts() {
  if (!several)
    return runs[0].charts.map((chart) => ({ ...chart,
      colors: chart.names.map((_, i) => i), data: [chart.x, ...chart.y] }));
  const found = new Map();
  runs.forEach((run, r) => run.charts.forEach((chart) => chart.names.forEach((name, i) => {
    if (!found.has(name)) found.set(name, { title: name.replace(/^eval\//, ''), log: chart.log, parts: [] });
    found.get(name).parts.push({ r, data: [chart.x, chart.y[i]] });
  })));
  return [...found.values()].map(({ title, log, parts }) => ({ title, log,
    names: parts.map((p) => runs[p.r].name), colors: parts.map((p) => p.r),
    data: uPlot.join(parts.map((p) => p.data)) }));
}

function short(value) {
  if (value == null) return '–';
  const size = Math.abs(value);
  if (size >= 1e6) return value.toExponential(2);
  if (Number.isInteger(value)) return whole.format(value);
  return size !== 0 && size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

function tick(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  return size >= 1e4 ? `${Number((value / 1e3).toPrecision(4))}k` : whole.format(value);
}

// Of the y axis, which has room for seven characters.
function graded(value) {
  if (value == null) return '';
  const size = Math.abs(value);
  if (size >= 1e4) return tick(value);
  return size !== 0 && size < 1e-3 ? Number(value.toPrecision(3)).toExponential() : short(value);
}

function smoothed(data, weight) {
  if (!weight) return data;
  const [x, ...series] = data;
  return [x, ...series.map((values) => {
    let mean = null;
    return values.map((v) => {
      if (v == null) return null;
      mean = mean == null ? v : weight * mean + (1 - weight) * v;
      return mean;
    });
  })];
}

const marks = { stage: 'soft', resumed: 'accent', collapse: 'bad', rollback: 'bad' };

function markers(u) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  for (const event of runs.flatMap((run) => run.events)) {
    if (event.images < u.scales.x.min || event.images > u.scales.x.max) continue;
    const x = Math.round(u.valToPos(event.images, 'x', true));
    ctx.strokeStyle = ctx.fillStyle = color(marks[event.kind]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    if (!several && event.label) ctx.fillText(event.label, x + 4 * devicePixelRatio, bbox.top + 11 * devicePixelRatio);
  }
  ctx.restore();
}

let drawn = [];
let busy = false;

function range(min, max) {
  busy = true;
  for (const { u } of drawn) u.setScale('x', { min, max });
  busy = false;
}

function limits() {
  const ends = drawn.flatMap(({ u }) => [u.data[0][0], u.data[0][u.data[0].length - 1]]);
  return [Math.min(...ends), Math.max(...ends)];
}

function draw(chart, box, weight) {
  const axis = { stroke: color('soft'), grid: { stroke: color('grid'), width: 1 },
    ticks: { stroke: color('grid'), width: 1 }, font: '11px system-ui, sans-serif' };
  const points = chart.data[0].length < 5;
  const u = new uPlot({
    width: Math.max(box.clientWidth, 200), height: 190,
    scales: { x: { time: false }, y: chart.log ? { distr: 3 } : {} },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map(tick), space: 70, size: 30 },
      { ...axis, size: 58, values: (_, ticks) => ticks.map(graded) },
    ],
    series: [
      { label: 'image', value: (_, v) => v == null ? '–' : whole.format(v) },
      ...chart.names.map((name, i) => ({ label: name.replace(/^eval\//, ''), stroke: color(chart.colors[i]), width: 1.5,
        spanGaps: true, 
        points: { show: points ? true : undefined, size: 5, fill: color(chart.colors[i]) }, value: (_, v) => short(v) })),
    ],
    cursor: { y: false, sync: { key: 'images', scales: ['x', null] },
      filters: { pub: (type) => type === 'mousemove' || type === 'mouseleave' },
      drag: { x: true, y: false } },
    hooks: {
      draw: [markers],
      setScale: [(self, key) => {
        if (key === 'x' && !busy) range(self.scales.x.min, self.scales.x.max);
      }],
    },
  }, smoothed(chart.data, weight), box);
  u.over.addEventListener('dblclick', () => range(...limits()));
  return { u, chart };
}

function move(u, step) {
  const [x] = u.data;
  const last = x.length - 1;
  const from = u.cursor.idx == null ? last : u.cursor.idx;
  const to = Math.min(last, Math.max(0, from + step));
  u.setCursor({ left: u.valToPos(x[to], 'x'), top: 10 });
}

function zoom(u, factor) {
  const { min, max } = u.scales.x;
  const [low, high] = limits();
  const middle = u.cursor.idx == null ? max : u.data[0][u.cursor.idx];
  const from = Math.max(low, middle - (middle - min) * factor);
  const to = Math.min(high, middle + (max - middle) * factor);
  if (to > from) range(from, to);
}

function curves() {
  const all = charts();
  if (!all.length) return;
  const grid = make('div', { class: 'charts' });
  const boxes = all.map((chart, i) => {
    const box = make('div', { class: 'chart', tabindex: 0, role: 'group', 'aria-label':
      `${chart.title}: arrow keys read values, plus and minus zoom, 0 shows all` });
    grid.append(make('div', { class: 'card' }, make('h3', {}, chart.title), box));
    box.addEventListener('keydown', (event) => {
      const u = drawn[i].u;
      const far = Math.max(1, Math.round(u.data[0].length / 20));
      const keys = { ArrowLeft: () => move(u, -1), ArrowRight: () => move(u, 1),
        PageUp: () => move(u, -far), PageDown: () => move(u, far),
        Home: () => move(u, -1e9), End: () => move(u, 1e9), '+': () => zoom(u, 0.5),
        '=': () => zoom(u, 0.5), '-': () => zoom(u, 2), 0: () => range(...limits()) };
      if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    return box;
  });
  const smooth = make('input', { type: 'range', id: 'smooth', min: 0, max: 0.98, step: 0.02, value: 0 });
  function redraw() {
    const before = drawn[0] && { ...drawn[0].u.scales.x };
    for (const { u } of drawn) u.destroy();
    busy = true;
    drawn = all.map((chart, i) => draw(chart, boxes[i], Number(smooth.value)));
    busy = false;
    if (before && before.min != null) range(before.min, before.max);
    else range(...limits());
  }
  const tools = make('div', { class: 'tools' });
  for (const [name, share] of [['All', 1], ['Last half', 0.5], ['Last tenth', 0.1]]) {
    const button = make('button', { type: 'button' }, name);
    button.addEventListener('click', () => {
      const [low, high] = limits();
      range(high - share * (high - low), high);
    });
    tools.append(button);
  }
  tools.append(make('label', { for: 'smooth' }, 'smooth', smooth));
  smooth.addEventListener('input', () =>
    drawn.forEach(({ u, chart }) => u.setData(smoothed(chart.data, Number(smooth.value)), false) || u.redraw()));
  section('Curves', tools, make('p', { class: 'soft' },
    'Drag over a chart to zoom in, double-click to see all; or focus one and use the arrow keys, + and −, 0.'
    + (story.thinned ? ' Of long runs each pair of points is the least and the greatest of its stretch.' : '')), grid);
  grid.previousSibling.style.marginBottom = '12px';
  redraw();
  let width = innerWidth;
  addEventListener('resize', () => {
    if (innerWidth === width) return;
    width = innerWidth;
    for (const { u } of drawn) u.setSize({ width: 50, height: 190 });
    drawn.forEach(({ u }, i) => u.setSize({ width: Math.max(boxes[i].clientWidth, 200), height: 190 }));
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
}
curves();

// Tables and pictures below.

function table(heads, rows) {
  return make('div', { class: 'card scroll' }, make('table', { class: 'list' },
    make('thead', {}, make('tr', {}, ...heads.map((h) => make('th', { scope: 'col' }, h)))),
    make('tbody', {}, ...rows.map((row) => make('tr', {}, ...row.map((cell) =>
      make('td', /^[\d,.]+$/.test(cell) ? { class: 'figure' } : {}, cell)))))));
}

const named = (run) => several ? [run.name] : [];
const heading = several ? ['Run'] : [];

const scores = runs.flatMap((run) => run.scores.map((s) => [...named(run), ...s]));
if (scores.length) section('Scores', table([...heading, 'Metric', 'Value', 'At image', 'How'], scores));

const events = runs.flatMap((run) => run.events.map((e) => [...named(run),
  whole.format(e.images), make('span', { class: `kind ${e.kind}` }, e.kind), e.text]));
if (events.length) section('What happened', table([...heading, 'Image', 'What', ''], events));

const pictures = runs.flatMap((run) => run.pictures.map((p) => make('figure', { class: 'card' },
  picture(p.src, p.title), make('figcaption', {}, several ? `${run.name}: ${p.title}` : p.title))));
if (pictures.length) section('More pictures', make('div', { class: 'pictures' }, ...pictures));

if (several) {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.config)))].sort();
  const rows = keys
    .map((key) => [key, ...runs.map((run) => String(run.config[key] ?? '–'))])
    .filter(([, ...values]) => new Set(values).size > 1);
  if (rows.length) section('Where the configs differ', table(['Key', ...runs.map((run) => run.name)], rows));
} else {
  const text = Object.entries(runs[0].config).map(([key, value]) => `${key} = ${value}`).join('\n');
  section('Config and surroundings', make('details', { class: 'card' },
    make('summary', {}, 'Every value'), make('pre', {}, `${text}\n\n${runs[0].surroundings}`)));
}

document.getElementById('footer').append(
  `Written ${story.written} (${ago(Date.now() / 1000 - story.time)}). ${story.about}`);
