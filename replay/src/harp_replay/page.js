"use strict";
// The timeline of a report: wheel or + and - zoom, dragging or arrows move, a double click or 0 shows
// all. The part that is shown stands in the address: #FROM-TO, in nanoseconds.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const box = document.getElementById("timeline");
  const canvas = box.querySelector("canvas");
  const tip = document.getElementById("tip");
  const ROW = 18, TITLE = 16, AXIS = 22, LEAST = 10;
  const end = Math.max(1, data.end);
  let view = [0, end];

  // Where each track begins, below the axis.
  const tops = [];
  let height = AXIS;
  for (const track of data.tracks) {
    tops.push(height);
    height += TITLE + ROW * track.depth + 6;
  }

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name);
  const time = (ns, step) => {
    for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
      if (ns >= size || step >= size) {
        const digits = step ? Math.max(0, Math.ceil(-Math.log10(step / size))) : 3;
        return (ns / size).toFixed(Math.min(digits, 9)) + " " + unit;
      }
    }
    return Math.round(ns) + " ns";
  };

  function bounded(from, to) {
    const width = Math.min(end, Math.max(LEAST, to - from));
    const start = Math.min(Math.max(0, from), end - width);
    return [start, start + width];
  }

  function fromAddress() {
    const found = /^#(\d+)-(\d+)$/.exec(location.hash);
    view = found && Number(found[2]) > Number(found[1])
      ? bounded(Number(found[1]), Number(found[2])) : [0, end];
  }

  function draw() {
    const width = box.clientWidth, scale = window.devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.height = height + "px";
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const per = width / (view[1] - view[0]);
    axis(pen, width, per);
    pen.fillStyle = color("soft");
    data.tracks.forEach((track, at) => pen.fillText(track.name, 6, tops[at] + TITLE / 2));
    const colors = {};
    for (const kind of ["api", "wait", "device", "queued", "bad"]) colors[kind] = color(kind);
    const ink = color("ink");
    let drawn = 0;
    for (const [track, depth, began, length, name, category] of data.slices) {
      if (began > view[1] || began + length < view[0]) continue;
      const left = Math.max(-2, (began - view[0]) * per);
      const right = Math.min(width + 2, (began + length - view[0]) * per);
      const wide = Math.max(1, right - left), top = tops[track] + TITLE + depth * ROW;
      pen.fillStyle = colors[data.categories[category]] || colors.bad;
      pen.fillRect(left, top, wide, ROW - 2);
      drawn += 1;
      if (wide > 30) {
        pen.save();
        pen.beginPath();
        pen.rect(left, top, wide - 3, ROW);
        pen.clip();
        pen.fillStyle = ink;
        pen.fillText(data.names[name], Math.max(left, 0) + 4, top + ROW / 2 - 1);
        pen.restore();
      }
    }
    box.dataset.drawn = drawn;
    box.dataset.view = view.map(Math.round).join("-");
  }

  function axis(pen, width, per) {
    const raw = 110 / per, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
    pen.lineWidth = 1;
    for (let at = Math.ceil(view[0] / step) * step; at <= view[1]; at += step) {
      const x = Math.round((at - view[0]) * per) + 0.5;
      pen.strokeStyle = color("line");
      pen.beginPath();
      pen.moveTo(x, AXIS - 6);
      pen.lineTo(x, height);
      pen.stroke();
      pen.fillStyle = color("soft");
      pen.fillText(time(at, step), x + 3, AXIS / 2);
    }
  }

  let waiting = false;
  function show(from, to) {
    view = bounded(from, to);
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
      history.replaceState(null, "", "#" + view.map(Math.round).join("-"));
    });
  }

  function zoom(factor, at) {
    const [from, to] = view, middle = from + (to - from) * at;
    show(middle - (middle - from) * factor, middle + (to - middle) * factor);
  }

  function under(event) {
    const place = canvas.getBoundingClientRect();
    const x = event.clientX - place.left, y = event.clientY - place.top;
    const per = (view[1] - view[0]) / place.width, at = view[0] + x * per;
    let found = null;
    for (const slice of data.slices) {
      const top = tops[slice[0]] + TITLE + slice[1] * ROW;
      const near = slice[2] - 2 * per <= at && at <= slice[2] + slice[3] + 2 * per;
      if (near && y >= top && y < top + ROW && (!found || slice[3] < found[3])) found = slice;
    }
    return [found, x, y];
  }

  let held = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = event.offsetX / canvas.clientWidth;
    zoom(Math.exp(event.deltaY / 400), at);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    held = [event.clientX, ...view];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (held) {
      const by = (held[0] - event.clientX) * (held[2] - held[1]) / canvas.clientWidth;
      show(held[1] + by, held[2] + by);
      return;
    }
    const [slice, x, y] = under(event);
    tip.hidden = !slice;
    if (!slice) return;
    const [, , began, length, name] = slice;
    tip.textContent = `${data.names[name]}: ${time(length)} at ${time(began)}`;
    tip.style.left = Math.min(x + 12, canvas.clientWidth - tip.offsetWidth) + "px";
    tip.style.top = y + 14 + "px";
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("dblclick", () => show(0, end));
  canvas.addEventListener("keydown", (event) => {
    const part = (view[1] - view[0]) / 5;
    const keys = {
      "+": () => zoom(0.7, 0.5), "-": () => zoom(1 / 0.7, 0.5), "0": () => show(0, end),
      ArrowLeft: () => show(view[0] - part, view[1] - part),
      ArrowRight: () => show(view[0] + part, view[1] + part),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  window.addEventListener("hashchange", () => { fromAddress(); draw(); });
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  fromAddress();
  draw();
})();
