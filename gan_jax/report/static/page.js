'use strict';
// What all pages share: elements, numbers and the style of charts. Text is inserted as
// textContent or attributes only; it is never parsed as markup.

const integer = new Intl.NumberFormat('en');

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

function formatValue(value) {
  if (value == null) return '–';
  const size = Math.abs(value);
  if (size >= 1e6) return value.toExponential(2);
  if (Number.isInteger(value)) return integer.format(value);
  return size !== 0 && size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

function formatTick(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  return size >= 1e4 ? `${Number((value / 1e3).toPrecision(4))}k` : integer.format(value);
}

// Labels of the y axis, which has room for seven characters.
function formatYTick(value) {
  if (value == null) return '';
  const size = Math.abs(value);
  if (size >= 1e4) return formatTick(value);
  return size !== 0 && size < 1e-3 ? Number(value.toPrecision(3)).toExponential() : formatValue(value);
}

const axisStyle = () => ({ stroke: color('soft'), grid: { stroke: color('grid'), width: 1 },
  ticks: { stroke: color('grid'), width: 1 }, font: '11px system-ui, sans-serif' });

function writeFooter({ written, time, command }) {
  document.getElementById('footer').append(
    `Written ${written} (${ago(Date.now() / 1000 - time)}). Update it with: ${command}`);
}
