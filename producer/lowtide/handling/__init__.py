"""The part that runs in a user's Celery application: it receives results and batch events, and registers where."""
