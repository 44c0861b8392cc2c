// A region under the pointer lights up in text and image; an image is enlarged by click or Enter.
(() => {
  if (window.lvRegions) return;
  window.lvRegions = true;
  const light = (event, on) => {
    const mark = event.target.closest?.("[data-region]");
    if (!mark) return;
    const group = mark.closest(".lv-zoom, .lv-linked") || document;
    const same = `[data-region="${CSS.escape(mark.dataset.region)}"]`;
    group.querySelectorAll(same).forEach((one) => one.classList.toggle("lv-lit", on));
  };
  document.addEventListener("pointerover", (event) => light(event, true));
  document.addEventListener("pointerout", (event) => light(event, false));

  const open = (picture) => {
    const dialog = document.createElement("dialog");
    dialog.className = "lv-zoom";
    dialog.setAttribute("aria-label", "Enlarged image; Enter shows full size, Escape closes");
    const copy = picture.cloneNode(true);
    copy.style.setProperty("--wide", picture.querySelector("img")?.naturalWidth || 0);
    dialog.append(copy);
    dialog.addEventListener("close", () => { dialog.remove(); picture.focus?.(); });
    document.body.append(dialog);
    dialog.showModal();
    copy.focus();
  };
  // First the whole window, then full size, then back to the page.
  window.lvZoom = (picture) => {
    const dialog = document.querySelector("dialog.lv-zoom");
    if (!dialog) { if (picture) open(picture); return; }
    if (dialog.classList.contains("lv-full")) dialog.close();
    else dialog.classList.add("lv-full");
  };
  document.addEventListener("click", (event) => {
    const picture = event.target.closest?.(".lv-picture");
    if (picture) window.lvZoom(picture);
    else if (event.target.matches?.("dialog.lv-zoom")) event.target.close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.target.matches?.(".lv-picture")) return;
    event.preventDefault();
    event.stopPropagation();
    window.lvZoom(event.target);
  }, true);
})();
