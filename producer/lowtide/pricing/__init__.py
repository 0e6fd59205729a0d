"""Prices: what the tokens of a row cost, by model, tier and modality, from a table that users can replace."""

from __future__ import annotations

from lowtide.pricing.cost import DayPrices, Details, cost
from lowtide.pricing.estimated import TokenPrice, price_table, request_costs, token_price
from lowtide.pricing.table import InvalidPrices, Modality, Price, PriceTable, Tier

__all__ = [
    "DayPrices",
    "Details",
    "InvalidPrices",
    "Modality",
    "Price",
    "PriceTable",
    "Tier",
    "TokenPrice",
    "cost",
    "price_table",
    "request_costs",
    "token_price",
]
