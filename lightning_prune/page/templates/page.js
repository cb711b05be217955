"use strict";
(() => {
  const tip = document.getElementById("tip"), said = document.getElementById("said");
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const wide = document.documentElement.clientWidth, box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, x - box.width / 2), wide - box.width - 8);
    const above = y - box.height - 14;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${(above > 4 ? above : y + 14) + window.scrollY}px`;
  };
  const hide = (mark) => { tip.hidden = true; mark.hidden = true; };

  const follow = (box, mark, find, move, place) => {
    let at = null;
    const put = (next, aloud) => {
      at = next;
      const { text, x, y } = place(at);
      show(text, x, y);
      if (aloud) said.textContent = text;
    };
    box.addEventListener("pointermove", (event) => put(find(event.clientX, event.clientY), false));
    box.addEventListener("pointerdown", (event) => put(find(event.clientX, event.clientY), false));
    for (const end of ["pointerleave", "blur"]) box.addEventListener(end, () => hide(mark));
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide(mark);
      const next = move(at, event.key);
      if (next === null) return;
      event.preventDefault();
      put(next, true);
    });
  };

  for (const box of document.querySelectorAll(".chart")) {
    const stops = JSON.parse(box.querySelector("script").textContent), mark = box.querySelector(".mark");
    if (!stops.length) continue;
    const wide = Number(box.dataset.width), high = Number(box.dataset.height), along = "along" in box.dataset;
    const frame = () => box.querySelector("svg").getBoundingClientRect();
    const find = (px, py) => {
      const f = frame(), x = (px - f.left) / f.width * wide, y = (py - f.top) / f.height * high;
      const far = ([sx, sy]) => along ? Math.abs(sx - x) : Math.abs(sy - y) * 1000 + Math.abs(sx - x);
      let best = 0;
      stops.forEach((stop, i) => { if (far(stop) < far(stops[best])) best = i; });
      return best;
    };
    const move = (at, key) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key];
      if (key === "Home") return 0;
      if (key === "End") return stops.length - 1;
      if (by === undefined) return null;
      return at === null ? 0 : Math.min(stops.length - 1, Math.max(0, at + by));
    };
    const place = (at) => {
      const f = frame(), [x, y, text] = stops[at];
      mark.hidden = false;
      mark.style.left = `${100 * x / wide}%`;
      mark.style.top = `${100 * y / high}%`;
      return { text, x: f.left + x / wide * f.width, y: f.top + y / high * f.height };
    };
    follow(box, mark, find, move, place);
  }

  for (const box of document.querySelectorAll(".mask")) {
    const image = box.querySelector("img"), mark = box.querySelector(".patch");
    const rows = image.height && Number(image.getAttribute("height")), columns = Number(image.getAttribute("width"));
    const all = [Number(box.dataset.rows), Number(box.dataset.columns)];
    let levels = null;
    const level = (row, column) => {
      if (!levels) {
        const canvas = document.createElement("canvas");
        canvas.width = columns; canvas.height = rows;
        const on = canvas.getContext("2d");
        on.drawImage(image, 0, 0);
        levels = on.getImageData(0, 0, columns, rows).data;
      }
      return Math.round(levels[4 * (row * columns + column) + 3] / 255 * 100);
    };
    const span = (what, i, number, whole) => {
      const first = Math.floor(i * whole / number), last = Math.floor((i + 1) * whole / number) - 1;
      return last > first ? `${what}s ${first} to ${last}` : `${what} ${first}`;
    };
    const frame = () => image.getBoundingClientRect();
    const within = (i, number) => Math.min(number - 1, Math.max(0, i));
    const find = (px, py) => {
      const f = frame();
      return [within(Math.floor((py - f.top) / f.height * rows), rows), within(Math.floor((px - f.left) / f.width * columns), columns)];
    };
    const move = (at, key) => {
      const by = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[key];
      if (key === "Home") return [0, 0];
      if (key === "End") return [rows - 1, columns - 1];
      if (!by) return null;
      return at === null ? [0, 0] : [within(at[0] + by[0], rows), within(at[1] + by[1], columns)];
    };
    const place = ([row, column]) => {
      const f = frame(), high = f.height / rows, wide = f.width / columns;
      mark.hidden = false;
      Object.assign(mark.style, { left: `${column * wide}px`, top: `${row * high}px`, width: `${wide}px`, height: `${high}px` });
      const text = `${span("row", row, rows, all[0])}, ${span("column", column, columns, all[1])}: ${level(row, column)} % left`;
      return { text, x: f.left + (column + .5) * wide, y: f.top + row * high };
    };
    follow(box, mark, find, move, place);
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      getSelection().selectAllChildren(code);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected";
      }
      said.textContent = button.textContent;
    });
  }
})();
