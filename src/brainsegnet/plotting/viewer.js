"use strict";
/* Indices are [x, y, z]: to the left, to the back and to the head of the patient. */
(() => {
const byId = id => document.getElementById(id), all = selector => [...document.querySelectorAll(selector)];
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const meta = JSON.parse(byId("meta").textContent);
const {shape: SHAPE, spacing: MM} = meta, STRIDE = [1, SHAPE[0], SHAPE[0] * SHAPE[1]];
const PLANES = [
  {name: "Axial", axes: [0, 1, 2], edges: "RLAP"},
  {name: "Coronal", axes: [0, 2, 1], edges: "RLSI"},
  {name: "Sagittal", axes: [1, 2, 0], edges: "APSI"},
];
const HEAT = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39],
  [252, 255, 164]];
const FOUND = [255, 196, 0], TRUE = [64, 196, 255], SHADOW = "rgba(0,0,0,.75)", PALE = "rgba(235,240,245,.9)";
const volumes = {};
const state = {place: [...meta.start], middle: [...meta.start], image: 0, region: -1, map: -1, lesion: -1, active: 0,
  labels: true, outline: true, truth: true, cross: true, contrast: false, opacity: 0.35, zoom: 1, hidden: new Set(),
  windows: meta.images.map(image => [...image.window])};
let waiting = false;

/* Volumes */
function toBytes(text) {
  return Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), one => one.charCodeAt(0));
}
async function inflate(id) {
  const stream = new DecompressionStream("gzip"), writer = stream.writable.getWriter();
  writer.write(toBytes(byId(`data-${id}`).textContent));
  writer.close();
  return new Uint8Array(await new Response(stream.readable).arrayBuffer());
}
/* Each byte is the difference to what the seven voxels before it predict. */
async function load(id) {
  if (volumes[id] || !byId(`data-${id}`)) return;
  const data = await inflate(id), [nx, ny, nz] = SHAPE, [, row, slice] = STRIDE;
  for (let z = 0, i = 0; z < nz; z++) for (let y = 0; y < ny; y++) {
    let l = 0, lu = 0, lb = 0, lub = 0;
    for (let x = 0; x < nx; x++, i++) {
      const u = y && data[i - row], b = z && data[i - slice], ub = y && z && data[i - slice - row];
      const predicted = (5 * (l + u + b) - 3 * (lu + lb + ub) + lub) / 7 | 0;
      l = data[i] += predicted < 0 ? 0 : predicted > 255 ? 255 : predicted;
      l &= 255; lu = u; lb = b; lub = ub;
    }
  }
  volumes[id] = data;
}
const imageOf = () => volumes[`image${state.image}`], mapOf = () => volumes[`map${state.map}`];
function valueOf({table, air, low, step}, byte) {
  return table ? table[byte] : air === null ? low + byte * step : byte ? low + (byte - 1) * step : air;
}
function describe(scale, byte) {
  const value = valueOf(scale, byte), first = scale.air === null ? 0 : 1;
  if (scale.table || byte < first) return String(+value.toPrecision(7));
  const sign = byte === 255 && scale.cut[1] ? "≥ " : byte === first && scale.cut[0] ? "≤ " : "≈ ";
  return sign + value.toFixed(clamp(Math.ceil(-Math.log10(scale.step)), 0, 9));
}

/* Geometry */
const apply = (matrix, [x, y, z]) => matrix.map(row => row[0] * x + row[1] * y + row[2] * z + row[3]);
function cut(volume, plane) {
  const [a, b, c] = PLANES[plane].axes, width = SHAPE[a], height = SHAPE[b], data = new Uint8Array(width * height);
  for (let j = 0; j < height; j++) {
    const from = state.place[c] * STRIDE[c] + (plane ? height - 1 - j : j) * STRIDE[b];
    for (let i = 0; i < width; i++) data[j * width + i] = volume[from + i * STRIDE[a]];
  }
  return {data, width, height};
}
/* Where a picture lies on its canvas, in pixels of the canvas: left, top, and the size of a voxel. */
function frame(plane) {
  const {width, height} = views[plane].canvas, [a, b] = PLANES[plane].axes;
  const scale = state.zoom * Math.min(width / (SHAPE[a] * MM[a]), height / (SHAPE[b] * MM[b]));
  const put = (axis, room, at) => {
    const length = SHAPE[axis] * MM[axis] * scale;
    return length <= room ? (room - length) / 2 : clamp(room / 2 - (at + 0.5) * MM[axis] * scale, room - length, 0);
  };
  const across = state.middle[a], down = plane ? SHAPE[b] - 1 - state.middle[b] : state.middle[b];
  return {left: put(a, width, across), top: put(b, height, down), px: scale * MM[a], py: scale * MM[b], scale};
}
function toScreen(plane, place) {
  const [a, b] = PLANES[plane].axes, at = frame(plane), v = plane ? SHAPE[b] - 1 - place[b] : place[b];
  return [at.left + (place[a] + 0.5) * at.px, at.top + (v + 0.5) * at.py];
}
function fromScreen(plane, x, y) {
  const [a, b] = PLANES[plane].axes, at = frame(plane), place = [...state.place], v = Math.floor((y - at.top) / at.py);
  place[a] = Math.floor((x - at.left) / at.px);
  place[b] = plane ? SHAPE[b] - 1 - v : v;
  return place;
}

/* Colours, and tables from a byte to a pixel 0xAABBGGRR; 0 is clear. */
const toRgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const toPixel = (rgb, share) => (share * 255 << 24 | rgb[2] << 16 | rgb[1] << 8 | rgb[0]) >>> 0;
const tabulate = pixel => Uint32Array.from({length: 256}, (_, byte) => pixel(byte));
function choosePaints(single) {
  const paints = [];
  if (state.region >= 0) for (const value of meta.regions[state.region].values) paints[value] = single;
  else if (state.region === -1)
    for (const {value, colour} of meta.labels) if (!state.hidden.has(value)) paints[value] = toRgb(colour);
  return paints;
}
function greys() {
  const [low, high] = state.windows[state.image];
  return tabulate(byte => {
    const grey = clamp(255 * (valueOf(meta.images[state.image], byte) - low) / (high - low || 1), 0, 255);
    return toPixel([grey, grey, grey], 1);
  });
}
function heats() {
  return tabulate(byte => {
    const share = Math.min(0.999, valueOf(meta.maps[state.map], byte)), at = share * (HEAT.length - 1), i = Math.floor(at);
    return byte && toPixel(HEAT[i].map((one, k) => one + (at - i) * (HEAT[i + 1][k] - one)), Math.min(0.85, share * 4));
  });
}

/* Drawing */
const views = all("figure").map(figure => ({
  figure, canvas: figure.querySelector("canvas"), slider: figure.querySelector("input"),
  caption: figure.querySelector("span"), sheet: document.createElement("canvas"),
}));
function put(context, sheet, {data, width, height}, pixels, at) {
  sheet.width = width; sheet.height = height;
  const image = new ImageData(width, height), into = new Uint32Array(image.data.buffer);
  for (let i = 0; i < into.length; i++) into[i] = pixels[data[i]];
  sheet.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(sheet, at.left, at.top, width * at.px, height * at.py);
}
function drawOutline(context, {data, width, height}, paints, {left, top, px, py}, line, dash) {
  const paths = new Map(), inset = dash ? 0 : line / 2, unit = devicePixelRatio;
  const at = (i, j) => i >= 0 && j >= 0 && i < width && j < height ? paints[data[j * width + i]] : null;
  for (let j = 0; j < height; j++) for (let i = 0; i < width; i++) {
    const colour = at(i, j);
    if (!colour) continue;
    if (!paths.has(colour)) paths.set(colour, new Path2D());
    const path = paths.get(colour), l = left + i * px, t = top + j * py, r = l + px, b = t + py;
    const edge = (x0, y0, x1, y1) => { path.moveTo(x0, y0); path.lineTo(x1, y1); };
    if (at(i - 1, j) !== colour) edge(l + inset, t, l + inset, b);
    if (at(i + 1, j) !== colour) edge(r - inset, t, r - inset, b);
    if (at(i, j - 1) !== colour) edge(l, t + inset, r, t + inset);
    if (at(i, j + 1) !== colour) edge(l, b - inset, r, b - inset);
  }
  for (const [colour, path] of paths) for (const over of dash ? [true] : [false, true]) {
    context.setLineDash(dash ? [3 * unit, 3 * unit] : []);
    context.lineCap = dash ? "butt" : "square";
    context.lineWidth = over ? line : line + 1.5 * unit;
    context.strokeStyle = over ? `rgb(${colour})` : "rgba(0,0,0,.5)";
    context.stroke(path);
  }
  context.setLineDash([]);
}
function drawText(context, text, x, y, align, base, size) {
  Object.assign(context, {font: `600 ${size * devicePixelRatio}px system-ui, sans-serif`, textAlign: align,
    textBaseline: base, lineJoin: "round", lineWidth: 3 * devicePixelRatio, strokeStyle: SHADOW, fillStyle: PALE});
  context.strokeText(text, x, y);
  context.fillText(text, x, y);
}
function drawLines(context, colour, width, lines) {
  context.strokeStyle = colour;
  context.lineWidth = width * devicePixelRatio;
  context.beginPath();
  for (const [x0, y0, x1, y1] of lines) { context.moveTo(x0, y0); context.lineTo(x1, y1); }
  context.stroke();
}
function drawMarks(context, plane, {scale}) {
  const {width, height} = context.canvas, gap = 7 * devicePixelRatio, [x, y] = toScreen(plane, state.place);
  if (state.cross) drawLines(context, "rgba(120,220,255,.65)", 1, [[0, y, x - 2 * gap, y], [x + 2 * gap, y, width, y],
    [x, 0, x, y - 2 * gap], [x, y + 2 * gap, x, height]]);
  const [left, right, top, bottom] = PLANES[plane].edges;
  drawText(context, left, gap, height / 2, "left", "middle", 15);
  drawText(context, right, width - gap, height / 2, "right", "middle", 15);
  drawText(context, top, width / 2, gap, "center", "top", 13);
  drawText(context, bottom, width / 2, height - gap, "center", "bottom", 13);
  const mm = [100, 50, 20, 10, 5, 2].find(length => length * scale < width / 3) || 1;
  const bar = [[gap, height - gap, gap + mm * scale, height - gap]];
  drawLines(context, SHADOW, 4, bar);
  drawLines(context, PALE, 2, bar);
  drawText(context, `${mm} mm`, gap, height - 1.6 * gap, "left", "bottom", 12);
}
function drawPlane({canvas, sheet, slider, caption}, plane, paints, truths) {
  const context = canvas.getContext("2d"), unit = devicePixelRatio, {name, axes} = PLANES[plane];
  const size = [canvas.clientWidth, canvas.clientHeight].map(length => Math.round(length * unit));
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  context.fillStyle = "#000";
  context.fillRect(0, 0, ...size);
  slider.value = state.place[axes[2]];
  caption.textContent = `${name} ${state.place[axes[2]] + 1} of ${SHAPE[axes[2]]}`;
  if (!imageOf() || !size[0] || !size[1]) return;
  const at = frame(plane), labels = cut(volumes.labels, plane), line = clamp(at.px / 1.6, unit, 1.75 * unit);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  put(context, sheet, cut(imageOf(), plane), greys(), at);
  context.imageSmoothingEnabled = false;
  if (mapOf()) put(context, sheet, cut(mapOf(), plane), heats(), at);
  else if (state.labels)
    put(context, sheet, labels, tabulate(byte => paints[byte] ? toPixel(paints[byte], state.opacity) : 0), at);
  if (state.labels && state.outline) drawOutline(context, labels, paints, at, line);
  if (volumes.truth && state.truth) drawOutline(context, cut(volumes.truth, plane), truths, at, 1.25 * line, true);
  drawMarks(context, plane, at);
}
function draw() {
  waiting = false;
  const paints = choosePaints(FOUND), truths = choosePaints(TRUE);
  views.forEach((view, plane) => drawPlane(view, plane, paints, truths));
  if (imageOf()) read();
}
function refresh() {
  if (!waiting) { waiting = true; requestAnimationFrame(draw); }
}

/* What is under the cross-hair */
function read() {
  const {place} = state, at = place[0] + place[1] * STRIDE[1] + place[2] * STRIDE[2], image = meta.images[state.image];
  const nameOf = byte => (meta.labels.find(label => label.value === byte) || {name: "no lesion"}).name;
  const mm = apply(meta.toRas, place).map(one => one.toFixed(1).replace("-0.0", "0.0").replace("-", "−"));
  const parts = [[image.name + (image.resampled ? ", resampled" : ""), describe(image, imageOf()[at])],
    ["", nameOf(volumes.labels[at])], ["x, y, z", `${mm.join(", ")} mm`], ["voxel", apply(meta.toVoxel, place).join(", ")]];
  if (volumes.truth) parts.splice(2, 0, ["truth", nameOf(volumes.truth[at])]);
  if (mapOf()) parts.splice(2, 0, [meta.maps[state.map].name, valueOf(meta.maps[state.map], mapOf()[at]).toFixed(2)]);
  byId("read").replaceChildren(...parts.map(([name, value]) => {
    const part = document.createElement("span"), strong = document.createElement("b");
    strong.textContent = value;
    part.append(name ? `${name} ` : "", strong);
    return part;
  }));
}

/* What can be done */
function go(place) {
  state.place = place.map((at, axis) => clamp(Math.round(at), 0, SHAPE[axis] - 1));
  views.forEach(({canvas}, plane) => {
    const [x, y] = toScreen(plane, state.place);
    if (canvas.width && (x < 0 || y < 0 || x > canvas.width || y > canvas.height)) state.middle = state.place;
  });
  refresh();
}
const moveTo = (axis, at) => go(state.place.map((one, i) => i === axis ? at : one));
const step = (axis, by) => moveTo(axis, state.place[axis] + by);
async function choose(what, number) {
  state[what] = number;
  if (what === "image") all("[data-image]").forEach((button, i) => button.setAttribute("aria-pressed", i === number));
  else if (byId(what)) byId(what).value = number;
  byId("scale").hidden = state.map < 0;
  await load(what + number);
  refresh();
}
const chooseNext = (what, least, count) => choose(what, state[what] + 1 < count ? state[what] + 1 : least);
function enlarge(plane) {
  state.active = plane;
  byId("planes").className = `big${plane}`;
  refresh();
}
function goToLesion(number) {
  const buttons = all("[data-place]");
  if (!buttons.length) return;
  state.lesion = (number + buttons.length) % buttons.length;
  buttons.forEach((button, i) => button.setAttribute("aria-current", i === state.lesion));
  byId("lesions").scrollTop = buttons[state.lesion].offsetTop - byId("lesions").offsetTop - 100;
  go(meta.lesions[state.lesion].place);
}
function change(width, level) {
  const [low, high] = state.windows[state.image], [first, last] = meta.images[state.image].window;
  const middle = (low + high) / 2 + level * (high - low);
  const half = Math.max((last - first) / 500, (high - low) / 2 * Math.exp(width));
  state.windows[state.image] = [middle - half, middle + half];
  refresh();
}
function zoom(factor) {
  state.zoom = clamp(state.zoom * factor, 1, 12);
  state.middle = state.place;
  refresh();
}
function setOpacity(opacity) {
  state.opacity = clamp(Math.round(opacity * 20) / 20, 0, 1);
  byId("opacity").value = 100 * state.opacity;
  refresh();
}
function toggle(name) {
  state[name] = !state[name];
  if (byId(name)) byId(name).checked = state[name];
  for (const {canvas} of views) canvas.style.touchAction = state.contrast ? "none" : "";
  refresh();
}
async function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([await inflate("mask")]));
  link.download = meta.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
const KEYS = {
  r: () => chooseNext("region", -2, meta.regions.length), p: () => chooseNext("map", -1, meta.maps.length),
  n: () => goToLesion(state.lesion + 1), N: () => goToLesion(Math.max(state.lesion, 0) - 1),
  l: () => toggle("labels"), o: () => toggle("outline"), t: () => toggle("truth"), x: () => toggle("cross"),
  w: () => toggle("contrast"), f: () => setOpacity(state.opacity - 0.1), F: () => setOpacity(state.opacity + 0.1),
  b: () => change(0, -0.05), B: () => change(0, 0.05), k: () => change(-0.1, 0), K: () => change(0.1, 0),
  0: () => { state.windows[state.image] = meta.images[state.image].window; refresh(); },
  a: () => enlarge(0), c: () => enlarge(1), s: () => enlarge(2), "+": () => zoom(1.25), "-": () => zoom(0.8), d: download,
  h: () => { byId("keys").open = !byId("keys").open; },
};
const MOVES = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, -1], ArrowDown: [1, 1], PageUp: [2, 1], PageDown: [2, -1]};
addEventListener("keydown", event => {
  const {target, key} = event, {tagName, type} = target;
  if (event.ctrlKey || event.metaKey || event.altKey || tagName === "SELECT") return;
  if (MOVES[key] && type !== "range") {
    const [which, by] = MOVES[key];
    step(PLANES[state.active].axes[which], which === 1 && state.active ? -by : by);
  } else if (meta.images[key - 1]) choose("image", key - 1);
  else if (KEYS[key]) KEYS[key]();
  else return;
  event.preventDefault();
});

/* Pointers */
views.forEach(({figure, canvas, slider}, plane) => {
  const axis = PLANES[plane].axes[2];
  let drag = null, turned = 0;
  slider.max = SHAPE[axis] - 1;
  slider.addEventListener("input", () => moveTo(axis, +slider.value));
  const point = event => {
    const box = canvas.getBoundingClientRect(), unit = devicePixelRatio;
    go(fromScreen(plane, (event.clientX - box.left) * unit, (event.clientY - box.top) * unit));
  };
  canvas.addEventListener("focus", () => { state.active = plane; });
  canvas.addEventListener("contextmenu", event => event.preventDefault());
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    drag = {x: event.clientX, y: event.clientY, contrast: state.contrast || event.button === 2 || event.shiftKey};
    if (!drag.contrast) point(event);
  });
  canvas.addEventListener("pointermove", event => {
    if (!drag) return;
    if (!drag.contrast) return point(event);
    change((event.clientX - drag.x) / 150, (event.clientY - drag.y) / 300);
    drag.x = event.clientX; drag.y = event.clientY;
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = null; });
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    if (event.ctrlKey) return zoom(event.deltaY < 0 ? 1.1 : 0.9);
    turned += clamp(event.deltaY * (event.deltaMode ? 30 : 1), -30, 30);
    const slices = Math.trunc(turned / 30);
    turned -= 30 * slices;
    if (slices) step(axis, -slices);
  }, {passive: false});
  figure.querySelector("button").addEventListener("click", () => enlarge(plane));
});
all("[data-image]").forEach((button, i) => button.addEventListener("click", () => choose("image", i)));
all("[data-place]").forEach((button, i) => button.addEventListener("click", () => goToLesion(i)));
all("[data-value]").forEach(box => box.addEventListener("change", () => {
  state.hidden[box.checked ? "delete" : "add"](+box.dataset.value);
  refresh();
}));
all("select").forEach(list => list.addEventListener("change", () => choose(list.id, +list.value)));
all("#tools [type=checkbox]").forEach(box => box.addEventListener("change", () => toggle(box.id)));
byId("opacity").addEventListener("input", event => setOpacity(event.target.value / 100));
byId("download").addEventListener("click", download);
byId("scale").querySelector("i").style.background = `linear-gradient(to right, ${HEAT.map(colour => `rgb(${colour})`)})`;
new ResizeObserver(refresh).observe(byId("planes"));

const viewer = window.viewer = {state, meta, go, toScreen, firstPicture: 0, loaded: 0};
async function start() {
  await load("labels");
  goToLesion(0);
  await choose("image", 0);
  draw();
  viewer.firstPicture = performance.now();
  for (const element of all("[id^=data-]")) if (element.id !== "data-mask") await load(element.id.slice(5));
  refresh();
  viewer.loaded = performance.now();
}
start().catch(error => {
  byId("read").textContent = `The images cannot be unpacked (${error.message}); use a browser of 2023 or later.`;
});
})();
