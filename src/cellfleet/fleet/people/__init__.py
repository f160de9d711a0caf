"""Operators, approvers and admins: accounts, sessions, tokens, rate limits."""
