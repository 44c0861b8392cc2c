"""What a corpus says stays text, in HTML and in Gradio's own templates."""

import pytest

from lavis.ui.markup import message, render, script, style


def test_marks_of_both_templates_are_escaped():
    html = message("<b> ${x} {{y}} @children & 'z'", "warning")
    assert html.startswith('<p class="lv lv-warning">')
    assert "&lt;b&gt;" in html and not set("@${}") & set(html)
    assert message("") == ""


def test_a_template_needs_all_its_values():
    with pytest.raises(Exception, match="undefined"):
        render("label_refused", why="nobody")


@pytest.mark.parametrize("page", ["label", "browse"])
def test_each_page_has_its_style_and_scripts(page):
    assert ".lv" in style(page) and script(page).count("<script>") == 2
