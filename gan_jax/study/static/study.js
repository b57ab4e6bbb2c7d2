
// The page of a study; page.js comes before it.

const study = JSON.parse(document.getElementById('report-data').textContent);

function heading() {
  const facts = make('dl', { class: 'facts' });
  for (const [name, value] of study.facts)
    facts.append(make('div', {}, make('dt', {}, name), make('dd', {}, value)));
  const fill = make('i');
  fill.style.width = `${100 * study.done}%`;
  document.getElementById('header').append(make('div', { class: 'card' },
    make('div', { class: 'run-head' }, make('h1', {}, study.title),
      make('span', { class: `status ${study.done === 1 ? 'good' : ''}` },
        study.done === 1 ? 'all cells have ended' : `${Math.round(100 * study.done)}% of the cells have ended`)),
    make('div', { class: 'bar', role: 'progressbar', 'aria-label': 'cells that have ended',
      'aria-valuenow': Math.round(100 * study.done), 'aria-valuemin': 0, 'aria-valuemax': 100 }, fill),
    facts));
}

// Charts: points with intervals and curves over one x.

const formatAxis = (value) => (value == null ? '' : Math.abs(value) >= 1e4 ? formatTick(value) : formatYTick(value));

function drawEnds(chart) {
  return (u) => {
    const { ctx } = u;
    ctx.save();
    ctx.lineWidth = 1.5 * devicePixelRatio;
    chart.ends.forEach((ends, i) => {
      if (!u.series[i + 1].show) return;
      ctx.strokeStyle = color(chart.colors[i]);
      for (const [x, low, high] of ends) {
        const at = Math.round(u.valToPos(x, 'x', true));
        const [from, to] = [low, high].map((y) => u.valToPos(y, 'y', true));
        const half = 4 * devicePixelRatio;
        ctx.beginPath();
        ctx.moveTo(at, from);
        ctx.lineTo(at, to);
        for (const y of [from, to]) {
          ctx.moveTo(at - half, y);
          ctx.lineTo(at + half, y);
        }
        ctx.stroke();
      }
    });
    ctx.restore();
  };
}

// The range of an axis: some room around all values, intervals included.
function rangeOf(values, log) {
  const known = values.filter((v) => v != null && (!log || v > 0));
  let [low, high] = [Math.min(...known), Math.max(...known)];
  if (log) {
    const room = Math.max((high / low) ** 0.06, 1.15);
    return [low / room, high * room];
  }
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}

// Ticks of a logarithmic axis. uPlot's own need a range that begins at a power of its base.
function logTicks(low, high) {
  const multiples = [[1], [1, 2, 5], [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9]];
  const exponents = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) exponents.push(e);
  const found = multiples.map((list) => exponents.flatMap((e) => list.map((m) => Number(`${m}e${e}`)))
    .filter((tick) => low <= tick && tick <= high));
  return found.find((ticks) => ticks.length >= 3) ?? found.at(-1);
}

function drawChart(chart, box) {
  const axis = axisStyle();
  const [x, ...y] = chart.data;
  const ends = chart.ends.flatMap((list) => list.flatMap(([, low, high]) => [low, high]));
  const xRange = rangeOf(x, chart.logX);
  const yRange = rangeOf([...y.flat(), ...ends], chart.logY);
  const scale = (log, range) => ({ ...(log ? { distr: 3 } : {}), time: false, range: () => range });
  const ticks = (log, range) => ({ values: (_, values) => values.map(formatAxis),
    ...(log ? { splits: () => logTicks(...range), filter: (_, values) => values } : {}) });
  return new uPlot({
    width: Math.max(box.clientWidth, 200), height: 240,
    scales: { x: scale(chart.logX, xRange), y: scale(chart.logY, yRange) },
    axes: [
      { ...axis, label: chart.xLabel, labelSize: 18, labelFont: axis.font, size: 30, space: 60,
        ...ticks(chart.logX, xRange) },
      { ...axis, label: chart.yLabel, labelSize: 18, labelFont: axis.font, size: 58,
        ...ticks(chart.logY, yRange) },
    ],
    series: [
      { label: chart.xLabel, value: (_, v) => formatValue(v) },
      ...chart.names.map((name, i) => ({ label: name, stroke: color(chart.colors[i]), spanGaps: true,
        width: chart.lines[i] ? 1.5 : 0,
        points: { show: !chart.lines[i] || y[i].filter((v) => v != null).length < 20, size: 7,
          fill: color(chart.colors[i]) },
        value: (_, v) => formatValue(v) })),
    ],
    cursor: { y: false, drag: { x: false, y: false } },
    hooks: { draw: [drawEnds(chart)] },
  }, chart.data, box);
}

const drawn = [];  // {u, chart, box}

function chartCard(chart) {
  const box = make('div', { class: 'chart', tabindex: 0, role: 'group',
    'aria-label': `${chart.title}: arrow keys show values` });
  const entry = { chart, box };
  drawn.push(entry);
  box.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const [x] = entry.u.data;
    const from = entry.u.cursor.idx == null ? (step > 0 ? -1 : x.length) : entry.u.cursor.idx;
    const to = Math.min(x.length - 1, Math.max(0, from + step));
    entry.u.setCursor({ left: entry.u.valToPos(x[to], 'x'), top: 10 });
  });
  return make('div', { class: 'card' }, make('h3', {}, chart.title), box);
}

function redraw() {
  for (const entry of drawn) {
    if (entry.u) entry.u.destroy();
    entry.u = drawChart(entry.chart, entry.box);
  }
}

// Tables: a click on a head sorts by it, a second one the other way.

function cellNode(value) {
  if (value == null) return make('td', {}, '–');
  if (typeof value === 'number') return make('td', { class: 'number' }, formatValue(value));
  if (typeof value === 'boolean') return make('td', {}, value ? 'yes' : 'no');
  if (typeof value === 'object') return make('td', {}, make('a', { href: value.href }, value.text));
  return make('td', {}, value);
}

const plain = (value) => (value != null && typeof value === 'object' ? value.text : value);

function compare(a, b) {
  if (a == null || b == null) return (a == null) - (b == null);
  if (typeof a === 'string') return a.localeCompare(b, undefined, { numeric: true });
  return a - b;
}

function tableCard({ name, title, note, heads, rows }) {
  // Columns that say nothing, such as the setting of a study without a sweep.
  const columns = heads.map((_, i) => i).filter((i) => rows.some((row) => row[i] != null && row[i] !== ''));
  const body = make('tbody');
  const cells = rows.map((row) => ({ row, node: make('tr', {}, ...columns.map((i) => cellNode(row[i]))) }));
  body.append(...cells.map(({ node }) => node));
  const head = make('tr');
  for (const i of columns) {
    const button = make('button', { type: 'button' }, heads[i]);
    const cell = make('th', { scope: 'col', 'aria-sort': 'none' }, button);
    button.addEventListener('click', () => {
      const up = cell.getAttribute('aria-sort') !== 'ascending';
      for (const other of head.children) other.setAttribute('aria-sort', 'none');
      cell.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const known = ({ row }) => row[i] != null;
      const sorted = [...cells].sort((a, b) => (known(a) && known(b)
        ? (up ? 1 : -1) * compare(plain(a.row[i]), plain(b.row[i])) : known(b) - known(a)));
      body.append(...sorted.map(({ node }) => node));
    });
    head.append(cell);
  }
  return make('div', { class: 'card' },
    make('h3', {}, `${title} `, make('a', { href: `tables/${name}.csv` }, 'CSV')),
    ...(note ? [make('p', { class: 'soft' }, note)] : []),
    make('div', { class: 'scroll' },
      make('table', { class: 'list sortable' }, make('thead', {}, head), body)));
}

heading();
if (study.answers.length)
  section('Answers', make('div', { class: 'card' },
    make('ul', {}, ...study.answers.map((text) => make('li', {}, text)))));
for (const { title, charts, tables } of study.sections) {
  if (!charts.length && !tables.length) continue;
  section(title,
    ...(charts.length ? [make('div', { class: 'charts' }, ...charts.map(chartCard))] : []),
    ...tables.map(tableCard));
}
redraw();
let width = innerWidth;
addEventListener('resize', () => {
  if (innerWidth === width) return;
  width = innerWidth;
  for (const { u } of drawn) u.setSize({ width: 50, height: 240 });
  for (const { u, box } of drawn) u.setSize({ width: Math.max(box.clientWidth, 200), height: 240 });
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
writeFooter(study);
