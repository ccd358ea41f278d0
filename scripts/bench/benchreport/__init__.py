# SPDX-License-Identifier: GPL-2.0-only
"""The report of the benchmark: samples in, text, JSON and plots out."""
