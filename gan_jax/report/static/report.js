// The report of one run, or of several side by side; page.js comes before it.

const report = JSON.parse(document.getElementById('report-data').textContent);
const runs = report.runs;
const several = runs.length > 1;

function swatch(i) {
  const node = make('span', { class: 'swatch' });
  node.style.background = `var(--c${i % 8})`;
  return node;
}

// The header of each run.

function runHeader(run, i) {
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
      make('span', { class: `status ${run.severity}` }, run.status)),
    make('div', { class: 'bar', role: 'progressbar', 'aria-label': 'images trained on',
      'aria-valuenow': Math.round(100 * run.done), 'aria-valuemin': 0, 'aria-valuemax': 100 }, fill),
    facts);
}

const header = document.getElementById('header');
if (several) header.append(make('h1', {}, `${runs.length} runs`), make('p'));
header.append(make('div', { class: 'runs' }, ...runs.map(runHeader)));

// Sample grids over time: one slider for all runs.

function imageElement(src, alt) {
  const image = make('img', { src, alt });
  image.addEventListener('load', () =>
    image.classList.toggle('large', image.naturalWidth > image.clientWidth));
  return image;
}

function timeline() {
  const times = [...new Set(runs.flatMap((run) => run.grids.map((s) => s.images)))]
    .sort((a, b) => a - b);
  if (!times.length) return;
  const slider = make('input', { type: 'range', id: 'time', min: 0, max: times.length - 1,
    step: 1, 'aria-label': 'images trained on' });
  const shown = make('output', { for: 'time', id: 'shown' });
  const play = make('button', { type: 'button', id: 'play' }, 'Play');
  const figures = runs.map((run, i) => {
    const image = imageElement('data:,', `sample grid of ${run.name} with fixed latents`);
    const missing = make('p', { class: 'missing' }, 'no sample grid yet at this time');
    const caption = make('figcaption', {}, ...(several ? [swatch(i), `${run.name}. `] : []), run.caption);
    return { run, image, missing, node: make('figure', { class: 'card sample-grid' }, image, missing, caption) };
  });
  function show() {
    const now = times[slider.value];
    const res = new Set();
    for (const { run, image, missing } of figures) {
      const grid = run.grids.filter((s) => s.images <= now).pop();
      image.hidden = !grid;
      missing.hidden = Boolean(grid);
      if (!grid) continue;
      if (image.getAttribute('src') !== grid.src) image.src = grid.src;
      if (grid.res) res.add(grid.res);
    }
    const size = res.size === 1 ? `, ${[...res][0]} pixels` : '';
    shown.textContent = `image ${integer.format(now)}${size}`;
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
  section('Samples over time',
    make('div', { class: 'timeline' }, play, slider, shown),
    make('div', { class: 'runs' }, ...figures.map((f) => f.node)));
}
timeline();

// Curves. One run: one chart per group of metrics. Several runs: one chart per metric.

function listCharts() {
  if (!several)
    return runs[0].charts.map((chart) => ({ ...chart,
      colors: chart.names.map((_, i) => i), data: [chart.x, ...chart.y] }));
  const byName = new Map();
  runs.forEach((run, r) => run.charts.forEach((chart) => chart.names.forEach((name, i) => {
    if (!byName.has(name)) byName.set(name, { title: name.replace(/^eval\//, ''), log: chart.log, parts: [] });
    byName.get(name).parts.push({ r, data: [chart.x, chart.y[i]] });
  })));
  return [...byName.values()].map(({ title, log, parts }) => ({ title, log,
    names: parts.map((p) => runs[p.r].name), colors: parts.map((p) => p.r),
    data: uPlot.join(parts.map((p) => p.data)) }));
}

function smooth(data, weight) {
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

const markerColors = { stage: 'soft', resumed: 'accent', collapse: 'bad', rollback: 'bad' };

function drawMarkers(u) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  for (const event of runs.flatMap((run) => run.events)) {
    if (event.images < u.scales.x.min || event.images > u.scales.x.max) continue;
    const x = Math.round(u.valToPos(event.images, 'x', true));
    ctx.strokeStyle = ctx.fillStyle = color(markerColors[event.kind]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    if (!several && event.label) ctx.fillText(event.label, x + 4 * devicePixelRatio, bbox.top + 11 * devicePixelRatio);
  }
  ctx.restore();
}

let drawn = [];  // {u: uPlot, chart}
let syncing = false;  // while `setRange` changes all charts

function setRange(min, max) {
  syncing = true;
  for (const { u } of drawn) u.setScale('x', { min, max });
  syncing = false;
}

function fullRange() {
  const ends = drawn.flatMap(({ u }) => [u.data[0][0], u.data[0][u.data[0].length - 1]]);
  return [Math.min(...ends), Math.max(...ends)];
}

function drawChart(chart, box, weight) {
  const axis = axisStyle();
  const points = chart.data[0].length < 5;
  const u = new uPlot({
    width: Math.max(box.clientWidth, 200), height: 190,
    scales: { x: { time: false }, y: chart.log ? { distr: 3 } : {} },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map(formatTick), space: 70, size: 30 },
      { ...axis, size: 58, values: (_, ticks) => ticks.map(formatYTick) },
    ],
    series: [
      { label: 'image', value: (_, v) => v == null ? '–' : integer.format(v) },
      ...chart.names.map((name, i) => ({ label: name.replace(/^eval\//, ''), stroke: color(chart.colors[i]), width: 1.5,
        spanGaps: true,
        points: { show: points ? true : undefined, size: 5, fill: color(chart.colors[i]) }, value: (_, v) => formatValue(v) })),
    ],
    cursor: { y: false, sync: { key: 'images', scales: ['x', null] },
      filters: { pub: (type) => type === 'mousemove' || type === 'mouseleave' },
      drag: { x: true, y: false } },
    hooks: {
      draw: [drawMarkers],
      setScale: [(self, key) => {
        if (key === 'x' && !syncing) setRange(self.scales.x.min, self.scales.x.max);
      }],
    },
  }, smooth(chart.data, weight), box);
  u.over.addEventListener('dblclick', () => setRange(...fullRange()));
  return { u, chart };
}

function moveCursor(u, step) {
  const [x] = u.data;
  const last = x.length - 1;
  const from = u.cursor.idx == null ? last : u.cursor.idx;
  const to = Math.min(last, Math.max(0, from + step));
  u.setCursor({ left: u.valToPos(x[to], 'x'), top: 10 });
}

function zoom(u, factor) {
  const { min, max } = u.scales.x;
  const [low, high] = fullRange();
  const middle = u.cursor.idx == null ? max : u.data[0][u.cursor.idx];
  const from = Math.max(low, middle - (middle - min) * factor);
  const to = Math.min(high, middle + (max - middle) * factor);
  if (to > from) setRange(from, to);
}

function curves() {
  const all = listCharts();
  if (!all.length) return;
  const grid = make('div', { class: 'charts' });
  const boxes = all.map((chart, i) => {
    const box = make('div', { class: 'chart', tabindex: 0, role: 'group', 'aria-label':
      `${chart.title}: arrow keys show values, plus and minus zoom, 0 resets the zoom` });
    grid.append(make('div', { class: 'card' }, make('h3', {}, chart.title), box));
    box.addEventListener('keydown', (event) => {
      const u = drawn[i].u;
      const far = Math.max(1, Math.round(u.data[0].length / 20));
      const keys = { ArrowLeft: () => moveCursor(u, -1), ArrowRight: () => moveCursor(u, 1),
        PageUp: () => moveCursor(u, -far), PageDown: () => moveCursor(u, far),
        Home: () => moveCursor(u, -1e9), End: () => moveCursor(u, 1e9), '+': () => zoom(u, 0.5),
        '=': () => zoom(u, 0.5), '-': () => zoom(u, 2), 0: () => setRange(...fullRange()) };
      if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    return box;
  });
  const slider = make('input', { type: 'range', id: 'smooth', min: 0, max: 0.98, step: 0.02, value: 0 });
  function redraw() {
    const before = drawn[0] && { ...drawn[0].u.scales.x };
    for (const { u } of drawn) u.destroy();
    syncing = true;
    drawn = all.map((chart, i) => drawChart(chart, boxes[i], Number(slider.value)));
    syncing = false;
    if (before && before.min != null) setRange(before.min, before.max);
    else setRange(...fullRange());
  }
  const tools = make('div', { class: 'tools' });
  for (const [name, share] of [['All', 1], ['Last half', 0.5], ['Last tenth', 0.1]]) {
    const button = make('button', { type: 'button' }, name);
    button.addEventListener('click', () => {
      const [low, high] = fullRange();
      setRange(high - share * (high - low), high);
    });
    tools.append(button);
  }
  tools.append(make('label', { for: 'smooth' }, 'Smoothing', slider));
  slider.addEventListener('input', () =>
    drawn.forEach(({ u, chart }) => u.setData(smooth(chart.data, Number(slider.value)), false) || u.redraw()));
  section('Curves', tools, make('p', { class: 'soft' },
    'Drag over a chart to zoom in, double-click to reset. With the keyboard: focus a chart; arrow keys show values, + and − zoom, 0 resets.'
    + (report.thinned ? ' Long runs: each pair of points is the minimum and the maximum of an interval.' : '')), grid);
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

// Tables and images below.

function table(heads, rows) {
  return make('div', { class: 'card scroll' }, make('table', { class: 'list' },
    make('thead', {}, make('tr', {}, ...heads.map((h) => make('th', { scope: 'col' }, h)))),
    make('tbody', {}, ...rows.map((row) => make('tr', {}, ...row.map((cell) =>
      make('td', /^[\d,.]+$/.test(cell) ? { class: 'number' } : {}, cell)))))));
}

const runName = (run) => several ? [run.name] : [];
const heading = several ? ['Run'] : [];

const scores = runs.flatMap((run) => run.scores.map((s) => [...runName(run), ...s]));
if (scores.length) section('Scores', table([...heading, 'Metric', 'Value', 'At image', 'Protocol'], scores));

const events = runs.flatMap((run) => run.events.map((e) => [...runName(run),
  integer.format(e.images), make('span', { class: `kind ${e.kind}` }, e.kind), e.text]));
if (events.length) section('Events', table([...heading, 'At image', 'Event', 'Details'], events));

const images = runs.flatMap((run) => run.images.map((p) => make('figure', { class: 'card' },
  imageElement(p.src, p.title), make('figcaption', {}, several ? `${run.name}: ${p.title}` : p.title))));
if (images.length) section('Other images', make('div', { class: 'images' }, ...images));

if (several) {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.config)))].sort();
  const rows = keys
    .map((key) => [key, ...runs.map((run) => String(run.config[key] ?? '–'))])
    .filter(([, ...values]) => new Set(values).size > 1);
  if (rows.length) section('Config differences', table(['Key', ...runs.map((run) => run.name)], rows));
} else {
  const text = Object.entries(runs[0].config).map(([key, value]) => `${key} = ${value}`).join('\n');
  section('Config and environment', make('details', { class: 'card' },
    make('summary', {}, 'Show all values'), make('pre', {}, `${text}\n\n${runs[0].environment}`)));
}

writeFooter(report);
