"""Audits: what a finished surface and its detector get wrong, and where. No audit changes what it audits."""
