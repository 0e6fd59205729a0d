"""Prices: what the tokens of a row cost, by model, tier and modality, from a table that users can replace."""

from __future__ import annotations

from lowtide.pricing.cost import Details, cost
from lowtide.pricing.table import InvalidPrices, Modality, Price, PriceTable, Tier

__all__ = ["Details", "InvalidPrices", "Modality", "Price", "PriceTable", "Tier", "cost"]
