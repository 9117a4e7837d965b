"""Delivery: messages to Telegram, each recorded before and after it is sent, so that none is lost or sent twice."""
