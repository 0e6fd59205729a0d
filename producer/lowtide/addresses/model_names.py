"""Names of models, in the forms that each provider takes.

Source: https://ai.google.dev/api/batch-api (Developer API) and
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs (Vertex AI).
"""

from __future__ import annotations

import re

from lowtide.states import Kind, ProviderName

_EXAMPLE = "gemini-3.5-flash"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]*(/[A-Za-z0-9][A-Za-z0-9._:@-]*)*", re.ASCII)
_OTHER_MAKERS = {
    "Anthropic": re.compile("claude"),
    "DeepSeek": re.compile("deepseek"),
    "Meta": re.compile("llama"),
    "Mistral": re.compile("mistral|ministral|mixtral|codestral"),
    "OpenAI": re.compile("gpt-|chatgpt|o[1-9](-|$)"),
    "Qwen": re.compile("qwen"),
    "xAI": re.compile("grok"),
}
"""Beginnings of names that other makers give. Google's names are not listed: new ones appear without notice."""
_GOOGLES = re.compile(r"(projects/[^/]+/locations/[^/]+/)?publishers/google/models/[^/]+")
_OWN = re.compile(r"projects/[^/]+/locations/[^/]+/models/[^/]+")


def check_model(name: str, provider: ProviderName) -> None:
    """Raises `ValueError`, with what to write instead, for a name that this provider has no model for."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a name of letters, digits and . _ - / : @, as in {_EXAMPLE!r}")
    bare = name.rpartition("/")[2]
    for maker, names in _OTHER_MAKERS.items():
        if names.match(bare.lower()):
            raise ValueError(
                f"{name!r:.80} is a model of {maker}, and Lowtide only runs batches on Google's models: "
                f"name one of them, such as {_EXAMPLE!r}"
            )
    if "/" not in name:
        return
    if provider is ProviderName.GEMINI:
        if not re.fullmatch("(models|tunedModels)/[^/]+", name):
            raise ValueError(
                f"{name!r:.80} is no name of the Gemini Developer API; write {bare!r:.80}, or provider='vertex'"
            )
    elif not (_GOOGLES.fullmatch(name) or _OWN.fullmatch(name)):
        raise ValueError(
            f"{name!r:.80} is no model of Google's on Vertex AI; write it as {_EXAMPLE!r}, or with projects/... in full"
        )


def doubt_about(name: str, kind: Kind) -> str | None:
    """Returns why a model seems to be for another kind of batch; None where nothing speaks against it."""
    embeds = "embedding" in name.lower()
    if embeds and kind is Kind.GENERATION:
        return f"{name} seems to be a model for embeddings: submit with kind='embedding'"
    if not embeds and kind is Kind.EMBEDDING and "gemini" in name.lower():
        return f"{name} seems to be no model for embeddings: submit with kind='generation', or name one"
    return None
