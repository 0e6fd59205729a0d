"""The built-in text model: short, deterministic and cheap answers.

The answer to a prompt is its first words; a token is about four characters. The answer to a request for
`application/json` is a value that is valid for its response schema, and to one for `text/x.enum` a value of its enum.
A request with functions is answered by a call if it must be (mode ANY), or if its text has the name of a function. A
request for images gets one.

Marks in the prompt make single rows fail. A mark that ends with `:n` works only for the first `n` answers to the same
text, so that a retry succeeds:

- `[[error:8]]`: the row is an error with this gRPC code (`[[error:8:1]]`: once)
- `[[status:8]]`: the same, under `status` instead of `error`
- `[[safety]]`: a candidate without text, finishReason SAFETY
- `[[recitation]]`: a candidate without text, finishReason RECITATION
- `[[blocked]]`: no candidate, promptFeedback.blockReason PROHIBITED_CONTENT
- `[[max_tokens]]`: half the text, finishReason MAX_TOKENS
- `[[thoughts_only]]`: no text, finishReason MAX_TOKENS, because thinking used all tokens
- `[[no_parts]]`: finishReason STOP and a content without parts
- `[[empty]]`: the response is `{}`
- `[[null]]`: the response is null
- `[[neither]]`: the line has neither a response nor an error
- `[[no_usage]]`: a good answer without usageMetadata
- `[[continuation]]`: half the text, finishReason CONTINUATION, and a continuationToken; the same request with that
  token gets the other half (`[[continuation:3]]`: three parts)
- `[[garbage]]`: text that is not JSON, even if JSON was requested
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable

import msgspec
from msgspec import Raw

from lowtide_emulator.answering.answers import Oddity, Reply, RowError
from lowtide_emulator.answering.parts import IMAGE_TOKENS, ImagePart, TextPart, image, wanted_call
from lowtide_emulator.answering.parts import Part as AnswerPart
from lowtide_emulator.answering.rules import ENUM, items
from lowtide_emulator.answering.schema_sample import Schema, sample
from lowtide_emulator.wire import either, integer

WORDS = 25
THOUGHT_TOKENS = 16
_TEXTS, _IMAGES = frozenset({"TEXT", "1"}), frozenset({"IMAGE", "2"})
"""The modalities of an answer, by name and by number."""

MARK = re.compile(r"\[\[([a-z_]+)(?::(\d+))?(?::(\d+))?\]\]")
_RPC_MESSAGES = {
    3: "Request contains an invalid argument.",
    4: "Deadline expired before operation could complete.",
    7: "The caller does not have permission",
    8: "Resource has been exhausted (e.g. check quota).",
    13: "Internal error encountered.",
    14: "The service is currently unavailable.",
}


# Requests: the fields that the built-in model reads.


class Part(msgspec.Struct, gc=False):
    """A part of a content; of the rest it matters only whether it is the response of a function."""

    text: str | None = None
    response: dict[str, Raw] | None = msgspec.field(default=None, name="functionResponse")
    response_snake: dict[str, Raw] | None = msgspec.field(default=None, name="function_response")


class Content(msgspec.Struct, gc=False):
    """One turn of the conversation."""

    parts: list[Part] | Part | None = None
    role: str | None = None

    @property
    def all_parts(self) -> list[Part]:
        """The parts; one may be sent without a list."""
        return [self.parts] if isinstance(self.parts, Part) else self.parts or []


class Config(msgspec.Struct, gc=False):
    """The generation parameters that change the answer."""

    max_tokens: int | str | None = msgspec.field(default=None, name="maxOutputTokens")
    max_tokens_snake: int | str | None = msgspec.field(default=None, name="max_output_tokens")
    mime: str | None = msgspec.field(default=None, name="responseMimeType")
    mime_snake: str | None = msgspec.field(default=None, name="response_mime_type")
    schema: Schema | None = msgspec.field(default=None, name="responseSchema")
    schema_snake: Schema | None = msgspec.field(default=None, name="response_schema")
    json_schema: Schema | None = msgspec.field(default=None, name="responseJsonSchema")
    json_schema_snake: Schema | None = msgspec.field(default=None, name="response_json_schema")
    modalities: list[str | int] | str | int | None = msgspec.field(default=None, name="responseModalities")
    modalities_snake: list[str | int] | str | int | None = msgspec.field(default=None, name="response_modalities")


class Prompt(msgspec.Struct, gc=False):
    """A GenerateContentRequest."""

    contents: list[Content] | Content | None = None
    tools: list[Schema] | Schema | None = None
    tool_config: Schema | None = msgspec.field(default=None, name="toolConfig")
    tool_config_snake: Schema | None = msgspec.field(default=None, name="tool_config")
    config: Config | None = msgspec.field(default=None, name="generationConfig")
    config_snake: Config | None = msgspec.field(default=None, name="generation_config")
    system: Content | None = msgspec.field(default=None, name="systemInstruction")
    system_snake: Content | None = msgspec.field(default=None, name="system_instruction")
    continuation: str | None = msgspec.field(default=None, name="continuationToken")
    continuation_snake: str | None = msgspec.field(default=None, name="continuation_token")


# At import: msgspec reads a type at its first use. Two threads that make it at once end the process.
_decode = msgspec.json.Decoder(Prompt).decode


# Responses.

Said = str | list[AnswerPart]
"""The model's turn: a text, or parts of other kinds."""


class ModelContent(msgspec.Struct, omit_defaults=True, gc=False):
    """The model's turn."""

    parts: list[AnswerPart] | None = None
    role: str = ""


class Candidate(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """One answer and the reason for its end."""

    content: ModelContent
    finish_reason: str
    index: int | None = None
    continuation_token: str = ""


class ModalityCount(msgspec.Struct, rename="camel", gc=False):
    """The number of tokens of one modality."""

    modality: str
    token_count: int


class Usage(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """The token counts. Counts of zero are omitted, as the service does."""

    prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    total_token_count: int = 0
    prompt_tokens_details: list[ModalityCount] = []
    traffic_type: str = ""


class Generated(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """A GenerateContentResponse."""

    candidates: list[Candidate] = []
    prompt_feedback: dict[str, str] | None = None
    usage_metadata: Usage | None = None
    model_version: str = ""
    create_time: str = ""
    response_id: str = ""


class TextModel:
    """A model that answers generateContent rows.

    model: the name that answers report.
    seen: how often each text with a mark was answered before; all jobs share it.
    stamp: returns the time that answers report, as on Vertex AI; None for answers without it.
    """

    def __init__(self, model: str, seen: Counter[str], *, stamp: Callable[[], str] | None = None) -> None:
        self._model = model
        self._seen = seen
        self._stamp = stamp

    def reply(self, key: str | None, request: Raw) -> Reply:
        """Returns the response to a request, or an error."""
        prompt = _decode(request)
        contents = [prompt.contents] if isinstance(prompt.contents, Content) else prompt.contents or []
        text = _text(contents)
        config = either(prompt.config, prompt.config_snake)
        said, finish = self._said(prompt, config, contents, text), "STOP"
        limit = None if config is None else integer(config.max_tokens, config.max_tokens_snake)
        if limit is not None and isinstance(said, str) and _tokens(said) > limit:
            said, finish = said[: 4 * limit], "MAX_TOKENS"
        system = either(prompt.system, prompt.system_snake)
        read = _tokens(text) + (0 if system is None else _tokens(_text([system])))
        mark = MARK.search(text) if "[[" in text else None
        if mark is None:
            return self._generated(key, text, read, said, finish)
        if mark[1] == "continuation":
            token = either(prompt.continuation, prompt.continuation_snake)
            return self._part_of(int(mark[2] or 2), token, key, text, read, said, finish)
        return self._marked(mark, key, text, read, said, finish)

    def _said(self, prompt: Prompt, config: Config | None, contents: list[Content], text: str) -> Said:
        if prompt.tools:
            last = contents[-1].all_parts if contents else []
            answered = any(part.response is not None or part.response_snake is not None for part in last)
            calling = either(prompt.tool_config, prompt.tool_config_snake)
            call = wanted_call(prompt.tools, calling, text, answered=answered)
            if call is not None:
                return [call]
        said = _summary(text)
        if config is None and "-image" not in self._model:
            return said
        config = config or Config()
        modalities = {str(name).upper() for name in items(either(config.modalities, config.modalities_snake))}
        if modalities & _IMAGES or (not modalities and "-image" in self._model):
            only = modalities and not modalities & _TEXTS
            return [image(text)] if only else [TextPart(said), image(text)]
        return _obey(config, said)

    def _generated(
        self,
        key: str | None,
        text: str,
        read: int,
        said: Said | None,
        finish: str,
        thoughts: int = THOUGHT_TOKENS,
    ) -> Generated:
        parts: list[AnswerPart] | None = [TextPart(said)] if isinstance(said, str) else said
        written = sum(map(_written, parts or ()))
        good = Generated(
            candidates=[Candidate(ModelContent(parts, "model"), finish, 0)],
            usage_metadata=Usage(
                read,
                written,
                thoughts,
                read + written + thoughts,
                [ModalityCount("TEXT", read)],
            ),
            model_version=self._model,
            response_id=_response_id(key, text),
        )
        if self._stamp is not None and good.usage_metadata is not None:
            good.create_time = self._stamp()
            good.usage_metadata.traffic_type = "ON_DEMAND"
        return good

    def _part_of(
        self, parts: int, token: str | None, key: str | None, text: str, read: int, said: Said, finish: str
    ) -> Generated:
        """Returns one of the parts of an answer: the first, or that of a token. Raises ValueError for another token."""
        number = 0 if token is None else _part_number(token)
        if not isinstance(said, str):
            parts = 1
        if number and number >= parts:
            raise ValueError("the continuation token is not of this request")
        if not isinstance(said, str) or parts <= 1:
            return self._generated(key, text, read, said, finish)
        size = -(-len(said) // parts)
        answer = self._generated(key, text, read, said[number * size : (number + 1) * size], finish)
        if number + 1 < parts:
            candidate = answer.candidates[0]
            candidate.finish_reason, candidate.continuation_token = "CONTINUATION", _token(number + 1)
        return answer

    def _marked(self, mark: re.Match[str], key: str | None, text: str, read: int, said: Said, finish: str) -> Reply:
        name, first, second = mark.groups()
        has_code = name in ("error", "status")
        times = second if has_code else first
        self._seen[text] += 1
        if times is not None and self._seen[text] > int(times):
            return self._generated(key, text, read, said, finish)
        if has_code:
            error = row_error(int(first or 13))
            return error if name == "error" else Oddity(error)
        match name:
            case "safety" | "recitation":
                return self._generated(key, text, read, None, name.upper(), 0)
            case "max_tokens":
                return self._generated(key, text, read, said[: len(said) // 2], "MAX_TOKENS")
            case "thoughts_only":
                return self._generated(key, text, read, None, "MAX_TOKENS")
            case "no_parts":
                return self._generated(key, text, read, None, "STOP")
            case "garbage":
                return self._generated(key, text, read, '{"this is": not JSON', "STOP")
            case "blocked":
                return Generated(
                    prompt_feedback={"blockReason": "PROHIBITED_CONTENT"},
                    usage_metadata=Usage(read, 0, 0, read),
                    model_version=self._model,
                    response_id=_response_id(key, text),
                )
            case "no_usage":
                good = self._generated(key, text, read, said, finish)
                good.usage_metadata = None
                return good
            case "empty":
                return Generated()
            case "null":
                return None
            case "neither":
                return Oddity()
            case _:
                return self._generated(key, text, read, said, finish)


def _token(number: int) -> str:
    """Returns the token of a part of an answer. It is bytes, which JSON has as base64."""
    return base64.b64encode(b"part-%d" % number).decode()


def _part_number(token: str) -> int:
    found = re.fullmatch(rb"part-(\d{1,3})", base64.b64decode(token))
    if found is None:
        raise ValueError("the continuation token is not one that was returned")
    return int(found[1])


def row_error(code: int) -> RowError:
    """Returns a row's error with the usual message of its gRPC code."""
    return RowError(code, _RPC_MESSAGES.get(code, f"Error {code}."))


def _text(contents: list[Content]) -> str:
    return " ".join(part.text for content in contents for part in content.all_parts if part.text)


def _summary(text: str) -> str:
    # Only the start is split, so that long prompts cost no more than short ones.
    words = text[: 16 * WORDS].split(None, WORDS)[:WORDS]
    return " ".join(words).rstrip(".,;:!? ") + "." if words else "Nothing was said."


def _obey(config: Config, said: str) -> str:
    mime = either(config.mime, config.mime_snake) or ""
    schema = either(
        either(config.schema, config.schema_snake),
        either(config.json_schema, config.json_schema_snake),
    )
    if mime == ENUM:
        return str(sample(schema or {}, said))
    if "json" not in mime:
        return said
    value: object = {"summary": said} if schema is None else sample(schema, said)
    return msgspec.json.encode(value).decode()


def _written(part: AnswerPart) -> int:
    if isinstance(part, ImagePart):
        return IMAGE_TOKENS
    return _tokens(part.text if isinstance(part, TextPart) else str(part.function_call))


def _tokens(text: str) -> int:
    return (len(text) + 3) // 4


def _response_id(key: str | None, text: str) -> str:
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=11)
    digest.update((key or "").encode())
    return digest.hexdigest()
