"""The templates of the pages, together with Flower's own, which they extend."""

from __future__ import annotations

from pathlib import Path

from tornado.template import DictLoader

_OWN = Path(__file__).parent / "templates"
_NAVBAR = "navbar.html"
_END_OF_TABS = "</ul>"
_TAB = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'lowtide' %} active{% end %}" href="{{ reverse_url('lowtide') }}"
            {% if active_tab == 'lowtide' %}aria-current="page"{% end %}>Lowtide</a>
        </li>
      """


def loader(flowers: str) -> DictLoader:
    """Returns a loader of Flower's templates, with a tab for Lowtide, and of the pages' templates.

    - `flowers`: the folder of Flower's templates.
    """
    texts = {path.name: path.read_text() for folder in (Path(flowers), _OWN) for path in folder.glob("*.html")}
    # The first list holds the tabs. A navigation bar of another form stays as it is.
    texts[_NAVBAR] = texts[_NAVBAR].replace(_END_OF_TABS, _TAB + _END_OF_TABS, 1)
    return DictLoader(texts)
