// Keys and address of the labelling page. What is typed or clicked while an answer is on its way
// waits for it, so that it goes to the record that is shown then; a refusal drops what waits.
(() => {
  const PATIENCE = 10000; // milliseconds, after which an answer is given up
  const ACTIONS = ["save", "skip", "back", "go"];
  const waiting = [];
  let pending = null; // the serial that was shown when an answer was asked for
  let timer = 0;
  let navigating = false; // the browser's own back or forward asked for the record

  const view = () => document.querySelector("#text [data-serial]");
  const serial = () => view()?.dataset.serial ?? "";
  const press = (id) => document.getElementById(id)?.click();
  const choose = (id, place) => document.querySelectorAll(`#${id} input[type=radio]`)[place]?.click();
  const field = (id) => document.querySelector(`#${id} textarea, #${id} input`);

  const settle = () => { pending = null; clearTimeout(timer); };
  const next = () => {
    // one at a time, each after the page took in the one before
    if (pending !== null || !waiting.length) return;
    waiting.shift()();
    setTimeout(next, 30);
  };
  const act = (action) => {
    if (pending === null && !waiting.length) action();
    else waiting.push(action);
  };
  const ask = () => {
    pending = serial();
    clearTimeout(timer);
    timer = setTimeout(() => { waiting.length = 0; settle(); }, PATIENCE);
  };

  // Clicks of the buttons: the first goes through, the others wait.
  let replaying = false;
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button");
    if (!button || !ACTIONS.includes(button.id)) return;
    if (pending === null && (replaying || !waiting.length)) { ask(); return; }
    event.preventDefault();
    event.stopImmediatePropagation();
    waiting.push(() => { replaying = true; press(button.id); replaying = false; });
  }, true);
  // After a click with the pointer, Enter saves; a button reached by Tab keeps its Enter.
  document.addEventListener("click", (event) => {
    const button = event.detail > 0 && event.target.closest?.("button, summary");
    if (button) setTimeout(() => button.blur());
  });
  // A choice for the record that comes next waits, too.
  document.addEventListener("click", (event) => {
    const radio = event.target.closest?.("#verdict label, #qa-score label, #r-score label");
    if (!radio || pending === null) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const group = radio.closest("#verdict, #qa-score, #r-score");
    const place = [...group.querySelectorAll("label:has(input)")].indexOf(radio);
    if (event.isTrusted) waiting.push(() => choose(group.id, place));
  }, true);

  const show = (search) => {
    const asked = new URLSearchParams(search);
    const input = field("target");
    if (!input || !asked.get("record")) { location.reload(); return; }
    if (asked.get("annotator") !== view()?.dataset.annotator || (asked.get("mode") || "label") !== view()?.dataset.mode) {
      location.reload();
      return;
    }
    navigating = true;
    input.value = asked.get("record");
    input.dispatchEvent(new Event("input", { bubbles: true }));
    setTimeout(() => press("go"), 50);
  };
  window.addEventListener("popstate", () => show(location.search));

  const remember = () => {
    const now = view();
    if (!now) return;
    const address = new URL(location.href);
    const { key, annotator, mode } = now.dataset;
    const set = (name, value) => (value ? address.searchParams.set(name, value) : address.searchParams.delete(name));
    const first = !address.searchParams.has("record");
    set("annotator", annotator);
    set("record", key);
    set("mode", mode === "label" ? "" : mode);
    if (address.href === location.href) { navigating = false; return; }
    history[navigating || first ? "replaceState" : "pushState"](null, "", address);
    navigating = false;
  };
  let last = "";
  new MutationObserver(() => {
    if (serial() === last) return;
    last = serial();
    remember();
    if (pending === null || pending === last) return;
    if (document.querySelector("#text .lv-warning")) waiting.length = 0;
    settle();
    setTimeout(next, 60); // until the choices of the new record are in place
  }).observe(document.documentElement, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-serial"] });

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.repeat) return;
    const at = event.target;
    const dialog = document.querySelector("dialog.lv-zoom");
    const key = event.key.toLowerCase();
    const typing = at.tagName === "TEXTAREA" || (at.tagName === "INPUT" && !["radio", "checkbox"].includes(at.type));
    if (typing) {
      if (key === "escape") at.blur();
      else if (key === "enter" && (event.ctrlKey || event.metaKey) && at.closest("#comment")) {
        at.blur();
        act(() => press("save"));
      }
      return;
    }
    if (event.ctrlKey || event.metaKey) return;
    if (dialog && key !== "z") return;
    // a control that has the focus keeps its own keys
    if ((key === "enter" || key === " ") && at.closest?.("button, a, summary, .lv-picture")) return;
    const now = {
      z: () => window.lvZoom?.(document.querySelector("#picture .lv-picture")),
      c: () => field("comment")?.focus(), g: () => field("target")?.focus(),
    };
    const later = {
      a: () => choose("verdict", 0), x: () => choose("verdict", 1), u: () => choose("verdict", 2),
      v: () => document.querySelector("#review input")?.click(),
    };
    [..."12345"].forEach((digit, place) => { later[digit] = () => choose("qa-score", place); });
    [..."qwert"].forEach((letter, place) => { later[letter] = () => choose("r-score", place); });
    const buttons = { enter: "save", arrowleft: "back", arrowright: "skip" };
    if (!now[key] && !later[key] && !buttons[key]) return;
    event.preventDefault();
    if (now[key]) now[key]();
    else if (later[key]) act(later[key]);
    else press(buttons[key]); // waits where it must, as a click does
  });
})();
