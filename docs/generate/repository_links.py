"""An MkDocs hook: pages and links that reach beyond `docs/`, so that one text works on the site and in the checkout.

The changelog, the contributors' page and the generated tables become pages of the site. A relative link is
resolved from where its text lies in the repository: to a page if the site has it, to plain text if only the repository
has it. A link to nothing is left alone, and the strict build fails on it.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
SINGLE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
FOLDERS = {"benchmarks/tables": "tables"}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)


def outside() -> dict[str, str]:
    """Repository path -> page of the site, for what does not lie in `docs/`."""
    tables = {
        f"{folder}/{file.name}": f"{place}/{file.name}"
        for folder, place in FOLDERS.items()
        for file in sorted((ROOT / folder).glob("*.md"))
    }
    return SINGLE | tables


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere."""
    for source, page in outside().items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Resolve relative links, but those in code blocks."""
    sources = {place: source for source, place in outside().items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = outside() | {f"docs/{file.src_uri}": file.src_uri for file in files if file.src_uri not in sources}

    def resolved(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        path = os.path.normpath(Path(source).parent / target)
        if path in pages:
            return f"[{text}]({os.path.relpath(pages[path], Path(page.file.src_uri).parent)}{anchor})"
        return text if (ROOT / path).exists() else found[0]

    pieces, end = [], 0
    for fence in FENCE.finditer(markdown):
        pieces += [LINK.sub(resolved, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, LINK.sub(resolved, markdown[end:])])
