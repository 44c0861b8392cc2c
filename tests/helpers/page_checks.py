"""What every page must hold in a browser: it fits, its texts can be read, its images are told."""

SIZES = {"desk": (1280, 800), "phone": (390, 844)}

_FAINT = """(root) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = "#000"; canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const ground = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      const color = rgba(getComputedStyle(one).backgroundColor);
      if (color[3] > 0) layers.push(color);
      if (color[3] >= 0.999) break;
    }
    const schemes = getComputedStyle(document.documentElement).colorScheme;
    const wanted = matchMedia("(prefers-color-scheme: dark)").matches;
    const dark = wanted && schemes.includes("dark");
    const start = dark ? [18, 18, 18] : [255, 255, 255];
    return layers.reverse().reduce((under, top) => over(top, under), start);
  };
  const light = (color) => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = color.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.querySelectorAll(`${root} *`)) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3);
    const words = own.map((node) => node.data.trim()).join(" ").trim();
    const seen = { opacityProperty: true, visibilityProperty: true };
    if (!words || !element.checkVisibility(seen)) continue;
    if (element.closest("svg, [aria-hidden=true], style, script, [disabled]")) continue;
    const under = ground(element), ink = over(rgba(getComputedStyle(element).color), under);
    const [a, b] = [light(ink), light(under)].sort((x, y) => x - y);
    const ratio = (b + 0.05) / (a + 0.05);
    const name = `${element.tagName}.${element.className}`;
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${name}: ${words.slice(0, 40)}`);
  }
  return found;
}"""


def faint_texts(page, root="body"):
    """Texts inside `root` whose contrast is below 4.5 (WCAG 2.2, 1.4.3), one line each."""
    return page.evaluate(_FAINT, root)


def too_wide(page):
    """Elements that make the page scroll sideways; empty where it fits."""
    return page.evaluate(
        """() => {
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= wide) return [];
  return [...document.querySelectorAll("body *")]
    .filter((e) => e.getBoundingClientRect().right > wide + 0.5)
    .map((e) => `${e.tagName}.${e.className}`).slice(0, 10);
}"""
    )


def untold_images(page):
    """Images without a text in their place, or wider or taller than the window."""
    return page.evaluate(
        """() => [...document.images].filter((image) => {
  const { width, height } = image.getBoundingClientRect();
  return !image.alt.trim() || width > innerWidth || height > innerHeight;
}).map((image) => `${image.alt || "no alt"} ${image.src.slice(0, 60)}`)"""
    )


def broken_links(page):
    """Links to places inside the page that are not there."""
    return page.evaluate(
        """() => [...document.querySelectorAll("a[href^='#']")]
  .filter((link) => !document.getElementById(link.hash.slice(1))).map((link) => link.hash)"""
    )


def check_report(browser, path):
    """Assert all of it of a page in a file, at both sizes, in light and dark; its links lead on."""
    for size, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            browser.set_viewport_size({"width": width, "height": height})
            browser.emulate_media(color_scheme=scheme)
            browser.goto(path.resolve().as_uri())
            browser.evaluate(
                "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
            )
            place = f"{path.name}, {size}, {scheme}"
            assert too_wide(browser) == [], place
            assert untold_images(browser) == [], place
            assert faint_texts(browser) == [], place
    assert broken_links(browser) == []
    links = browser.evaluate(
        "() => [...document.links].map((a) => a.getAttribute('href')).filter((h) => h[0] !== '#')"
    )
    for link in links:
        assert "://" in link or (path.parent / link).exists(), link
