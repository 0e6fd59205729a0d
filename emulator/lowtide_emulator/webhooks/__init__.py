"""Webhooks of the Developer API: events that are sent when batches end, signed in each of the known forms.

Source: https://ai.google.dev/gemini-api/docs/webhooks
"""

from __future__ import annotations

from lowtide_emulator.webhooks.api import WebhookApi
from lowtide_emulator.webhooks.sender import WebhookConfig, WebhookSender

__all__ = ["WebhookApi", "WebhookConfig", "WebhookSender"]
