"""The side of a user's Celery application that receives results."""
