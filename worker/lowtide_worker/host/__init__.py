"""Celery's side: the application, its tasks, the timer, and the reading of messages."""
