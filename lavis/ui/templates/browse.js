// The address holds what the page shows: links and buttons change it, and it is shown again.
(() => {
  if (window.lvBrowse) return;
  const press = (id) => document.getElementById(id)?.click();
  const number = (text, otherwise) => (Number.isFinite(parseFloat(text)) ? parseFloat(text) : otherwise);
  // Names with two underscores are Gradio's own, such as the theme's.
  const merged = (query) => {
    const wanted = new URLSearchParams(query);
    for (const [name, value] of new URLSearchParams(location.search))
      if (name.startsWith("__")) wanted.append(name, value);
    const text = wanted.toString();
    return text ? `?${text}` : "";
  };
  const selection = () => {
    const wanted = new URLSearchParams(location.search);
    wanted.delete("open");
    wanted.sort();
    return wanted.toString();
  };
  let shown = selection(); // Gradio shows the first address by itself
  // Where the fields are folded, what already chooses records is seen.
  const unfold = () => {
    const names = ["source", "score_from", "score_to", "regions_from", "regions_to", "difference_from", "difference_to"];
    const wanted = new URLSearchParams(location.search);
    const fold = document.querySelector("#filters details");
    if (fold && names.some((name) => wanted.has(name))) fold.open = true;
  };
  const show = () => {
    unfold();
    const same = selection() === shown;
    shown = selection();
    press(same ? "show" : "go");
  };
  const push = (query) => {
    const address = merged(query);
    if (address !== location.search) history.pushState({}, "", location.pathname + address);
  };
  const visit = (query) => { push(query); show(); };
  const changed = (changes) => {
    const wanted = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(changes))
      if (value === "") wanted.delete(name); else wanted.set(name, value);
    return wanted.toString();
  };
  const turn = (page) => {
    const pages = number(document.querySelector(".lv-line")?.dataset.pages, 1);
    page = Math.min(Math.max(1, Math.round(page)), pages);
    visit(changed({ p: page > 1 ? page : "", open: "" }));
  };
  window.lvBrowse = {
    here: () => { unfold(); return [location.search]; },
    arrived: (query) => { push(query); shown = selection(); return []; },
    step: (by) => { turn(number(new URLSearchParams(location.search).get("p"), 1) + by); return []; },
    turn: (page) => { turn(number(page, 1)); return []; },
    detail: (element) => {
      const dialog = element.querySelector("dialog.lv-detail");
      if (!dialog || dialog.open) return;
      dialog.showModal();
      dialog.focus();
    },
  };
  const close = () => document.querySelector("dialog.lv-detail [data-close]")?.click();

  window.addEventListener("popstate", show);
  document.addEventListener("click", (event) => {
    if (event.target.matches?.("dialog.lv-detail")) close();
    const link = event.target.closest?.("a[data-go]");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if ("close" in link.dataset) link.closest("dialog")?.close();
    visit(link.search);
  });
  // Escape closes a dialog without a click; the address must hear of it.
  document.addEventListener("cancel", (event) => {
    if (!event.target.matches?.("dialog.lv-detail")) return;
    event.preventDefault();
    close();
  }, true);
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: "-1", ArrowRight: "1" }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
    if (document.querySelector("dialog.lv-zoom")) return;
    document.querySelector(`dialog.lv-detail[open] [data-step="${by}"]`)?.click();
  });

  // Dragging over the histogram chooses whole bins; a click chooses one.
  let drag = null;
  const place = (event, area) => {
    const { left, width } = area.getBoundingClientRect();
    const bins = number(area.dataset.bins, 1);
    return Math.min(bins - 1, Math.max(0, Math.floor(((event.clientX - left) / width) * bins)));
  };
  const draw = () => {
    const brush = drag.area.querySelector(".lv-brush");
    const bins = number(drag.area.dataset.bins, 1);
    const [from, to] = [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to) + 1];
    brush.hidden = false;
    brush.style.left = `${(100 * from) / bins}%`;
    brush.style.width = `${(100 * (to - from)) / bins}%`;
    return [from, to, bins];
  };
  document.addEventListener("pointerdown", (event) => {
    const area = event.target.closest?.(".lv-histogram");
    if (!area || event.button) return;
    drag = { area, from: place(event, area), to: place(event, area) };
    draw();
  });
  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    drag.to = place(event, drag.area);
    draw();
  });
  document.addEventListener("pointercancel", () => {
    if (drag) drag.area.querySelector(".lv-brush").hidden = true;
    drag = null;
  });
  document.addEventListener("pointerup", () => {
    if (!drag) return;
    const [from, to, bins] = draw();
    const low = number(drag.area.dataset.low, 0), high = number(drag.area.dataset.high, 1);
    drag = null;
    const edge = (bin) => String(+(low + ((high - low) * bin) / bins).toPrecision(6));
    visit(changed({
      score_from: from === 0 ? "" : edge(from), score_to: to === bins ? "" : edge(to), p: "", open: "",
    }));
  });
})();
