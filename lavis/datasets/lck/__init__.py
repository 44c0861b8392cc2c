"""Localized commonsense knowledge: records with regions, and the data sets made of them."""
