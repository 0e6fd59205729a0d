"""A Django project in one file, whose view asks a question when its transaction has committed: python django_app.py

Run `lowtide up` first, and here the line that it prints. Then:

    curl -X POST 127.0.0.1:8001/articles/ -d name='blue mug'
    curl 127.0.0.1:8001/articles/1/
"""

from __future__ import annotations

import secrets
import sys
from functools import partial

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import path

from lowtide import BatchQueue, Request

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "articles.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        ROOT_URLCONF=__name__,
        SECRET_KEY=secrets.token_hex(),
    )
    django.setup()

queue = BatchQueue()


class Article(models.Model):
    """An article; `ticket` finds its blurb."""

    name = models.CharField(max_length=200)
    ticket = models.CharField(max_length=100, default="")

    class Meta:
        app_label = "shop"
        db_table = "articles"


def create(request: HttpRequest) -> JsonResponse:
    """Stores an article, and asks for its blurb once the article is certain to exist."""
    with transaction.atomic():
        article = Article.objects.create(name=request.POST["name"])
        transaction.on_commit(partial(order_blurb, article.pk), robust=True)
    return JsonResponse({"article": article.pk}, status=201)


def order_blurb(pk: int) -> None:
    """Asks for the blurb of an article. To call it again is safe: the key has one ticket."""
    article = Article.objects.get(pk=pk)
    question = Request(contents=f"Write a blurb for {article.name}.")
    article.ticket = queue.add(question, model="gemini-3.5-flash", key=f"blurb-{pk}").id
    article.save(update_fields=["ticket"])


def show(request: HttpRequest, pk: int) -> JsonResponse:
    """Shows an article, with its blurb when there is one."""
    del request
    article = get_object_or_404(Article, pk=pk)
    if not article.ticket:
        # The process died behind the commit, or Redis was away.
        order_blurb(pk)
        article.refresh_from_db()
    status = queue.ticket(article.ticket).status()
    blurb = status.result.text if status.result else None
    return JsonResponse({"name": article.name, "state": status.state, "blurb": blurb})


urlpatterns = [path("articles/", create), path("articles/<int:pk>/", show)]
application = get_wsgi_application()


def make_table() -> None:
    """Makes the table of articles, in place of a migration."""
    if "articles" not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Article)


if __name__ == "__main__":
    make_table()
    execute_from_command_line([sys.argv[0], "runserver", "--noreload", "127.0.0.1:8001"])
