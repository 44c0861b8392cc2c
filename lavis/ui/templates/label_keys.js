// Keys of the labelling page; typing in a field is left alone.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const at = event.target;
  const typing = at.tagName === "TEXTAREA" || (at.tagName === "INPUT" && at.type !== "radio");
  if (typing) return;
  const choose = (id, place) => document.querySelectorAll(`#${id} input[type=radio]`)[place]?.click();
  const press = (id) => document.getElementById(id)?.click();
  const key = event.key.toLowerCase();
  const actions = {
    a: () => choose("verdict", 0), x: () => choose("verdict", 1),
    enter: () => press("save"), arrowleft: () => press("back"), arrowright: () => press("skip"),
  };
  [..."12345"].forEach((digit, place) => { actions[digit] = () => choose("qa-score", place); });
  [..."qwert"].forEach((letter, place) => { actions[letter] = () => choose("r-score", place); });
  if (!actions[key]) return;
  event.preventDefault();
  actions[key]();
});
