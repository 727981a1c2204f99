"use strict";
(() => {
  document.documentElement.classList.add("js");
  const data = JSON.parse(document.getElementById("gallery-data").textContent);
  const sections = [...document.querySelectorAll("section.cell")];
  const PAGE = 24;

  // A map, a norm and a radius at a time.
  const subject = document.getElementById("subject");
  const slider = document.getElementById("radius");
  const shown = document.getElementById("radius-value");
  const subjects = [...new Set(sections.map((s) => s.dataset.subject))];
  for (const text of subjects) subject.append(new Option(text, text));
  const ofSubject = () =>
    sections.filter((s) => s.dataset.subject === subject.value).sort((a, b) => a.dataset.eps - b.dataset.eps);
  const choose = () => {
    const mine = ofSubject();
    slider.max = String(mine.length - 1);
    const chosen = mine[Number(slider.value)];
    for (const section of sections) section.hidden = section !== chosen;
    shown.value = chosen.dataset.radius;
    slider.setAttribute("aria-valuetext", chosen.dataset.radius);
    const gallery = galleries.get(chosen.dataset.key);
    if (gallery) gallery.draw();
  };
  subject.addEventListener("change", () => { slider.value = String(ofSubject().length - 1); choose(); });
  slider.addEventListener("input", choose);
  document.getElementById("chooser").addEventListener("submit", (event) => event.preventDefault());

  // Sort and filter the tables.
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const row of document.querySelectorAll("table.sortable tbody tr"))
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const value = (row) => {
          const cell = row.cells[column];
          if (head.dataset.sort === "text") return cell.textContent;
          return cell.dataset.value === "" ? -Infinity : Number(cell.dataset.value);
        };
        const rows = [...body.rows].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
        body.append(...(up ? rows : rows.reverse()));
      });
    });
  }

  // Pixels of the sheets, decoded once.
  const sheets = new Map();
  const pixels = (name) => {
    if (!sheets.has(name)) {
      sheets.set(name, new Promise((resolve) => {
        const image = new Image();
        image.onload = () => {
          const canvas = document.createElement("canvas");
          canvas.width = image.width; canvas.height = image.height;
          const context = canvas.getContext("2d", { willReadFrequently: true });
          context.drawImage(image, 0, 0);
          resolve(context);
        };
        image.src = data.sheets[name];
      }));
    }
    return sheets.get(name);
  };
  // A dark-to-light colour scale with steps that the eye sees as even.
  const STOPS = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
  const tint = (value) => {
    const place = (value / 255) * (STOPS.length - 1), low = Math.min(STOPS.length - 2, Math.floor(place));
    return STOPS[low].map((each, channel) => each + (place - low) * (STOPS[low + 1][channel] - each));
  };
  const COLOURS = Array.from({ length: 256 }, (_, value) => tint(value));

  class Gallery {
    constructor(root, cell) {
      this.root = root; this.cell = cell; this.page = 0;
      this.pattern = Int8Array.from(atob(cell.pattern), (char) => char.charCodeAt(0));
      const find = (name) => root.querySelector(name);
      this.order = find(".order"); this.kind = find(".class"); this.image = find(".split-image");
      this.map = find(".split-map"); this.overlay = find(".overlay"); this.tiles = find(".tiles");
      this.place = find(".place");
      for (const label of [...new Set(cell.label)].sort()) this.kind.append(new Option(label, label));
      for (const control of [this.order, this.kind]) control.addEventListener("change", () => { this.page = 0; this.draw(); });
      for (const control of [this.image, this.map, this.overlay]) control.addEventListener("input", () => this.paint());
      find(".previous").addEventListener("click", () => this.turn(-1));
      find(".next").addEventListener("click", () => this.turn(1));
      find("form").addEventListener("submit", (event) => event.preventDefault());
    }
    chosen() {
      const { cell } = this;
      const all = cell.change.map((_, place) => place).filter((p) => this.kind.value === "" || cell.label[p] === this.kind.value);
      const by = { most: (a, b) => cell.change[b] - cell.change[a], least: (a, b) => cell.change[a] - cell.change[b], number: (a, b) => a - b };
      return all.sort(by[this.order.value]);
    }
    turn(step) {
      const last = Math.max(0, Math.ceil(this.chosen().length / PAGE) - 1);
      this.page = Math.min(last, Math.max(0, this.page + step));
      this.draw();
    }
    async draw() {
      const { cell } = this, places = this.chosen(), first = this.page * PAGE;
      this.sheets = await Promise.all([cell.images, cell.clean, cell.perturbed].map(pixels));
      this.now = places.slice(first, first + PAGE);
      this.place.textContent = `${first + 1} to ${first + this.now.length} of ${places.length} images, ${cell.row}`;
      this.tiles.replaceChildren(...this.now.map((place) => {
        const tile = document.createElement("figure"), caption = document.createElement("figcaption");
        tile.className = "tile";
        for (const what of ["image", "map"]) {
          const canvas = document.createElement("canvas");
          canvas.width = cell.width; canvas.height = cell.height;
          canvas.setAttribute("role", "img");
          canvas.setAttribute("aria-label", `${what} of test image ${cell.sample[place]}, class ${cell.label[place]}`);
          tile.append(canvas, " ");
        }
        caption.textContent = `${cell.label[place]}, no. ${cell.sample[place]}: change ${cell.change[place].toFixed(2)} `;
        if (!cell.kept[place]) {
          const flip = document.createElement("span");
          flip.className = "flip"; flip.textContent = "prediction changes";
          caption.append(flip);
        }
        tile.append(caption);
        return tile;
      }));
      this.paint();
    }
    paint() {
      if (!this.now) return;
      [...this.tiles.children].forEach((tile, number) => this.paintTile(tile, this.now[number]));
    }
    paintTile(tile, place) {
      const { width, height, columns, scale, channels } = this.cell, size = width * height;
      const x = (place % columns) * width, y = Math.floor(place / columns) * height;
      const [image, clean, moved] = this.sheets.map((sheet) => sheet.getImageData(x, y, width, height).data);
      const [left, right] = tile.querySelectorAll("canvas");
      const picture = new ImageData(width, height), map = new ImageData(width, height);
      // The slider says which share of the columns, from the right, shows the perturbed side.
      const perturbedFrom = width * (1 - this.image.value / 100), movedFrom = width * (1 - this.map.value / 100);
      for (let p = 0; p < size; p++) {
        const column = p % width, colour = COLOURS[(column >= movedFrom ? moved : clean)[4 * p]];
        for (let c = 0; c < 3; c++) {
          const added = column >= perturbedFrom ? (this.pattern[(channels === 3 ? c : 0) * size + p] / 127) * scale * 255 : 0;
          picture.data[4 * p + c] = image[4 * p + c] + added;
          map.data[4 * p + c] = this.overlay.checked ? 0.45 * image[4 * p + c] + 0.55 * colour[c] : colour[c];
        }
        picture.data[4 * p + 3] = map.data[4 * p + 3] = 255;
      }
      left.getContext("2d").putImageData(picture, 0, 0);
      right.getContext("2d").putImageData(map, 0, 0);
    }
  }
  const galleries = new Map();
  for (const root of document.querySelectorAll(".gallery")) {
    const cell = data.cells[root.dataset.key];
    if (cell) galleries.set(root.dataset.key, new Gallery(root, cell)); else root.remove();
  }
  subject.dispatchEvent(new Event("change"));
})();
