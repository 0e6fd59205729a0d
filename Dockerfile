# One image for workers, Flower and the emulator; the command decides which.
FROM python:3.12-slim AS build
WORKDIR /src
# What is installed is pinned by hash, to what the tests ran with.
COPY requirements-pip.txt requirements.txt ./
RUN python -m venv /opt/lowtide \
    && /opt/lowtide/bin/pip install --no-cache-dir --require-hashes -r requirements-pip.txt \
    && /opt/lowtide/bin/pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY producer producer
COPY worker worker
COPY emulator emulator
COPY cli cli
RUN /opt/lowtide/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 lowtide \
    && install -d -o lowtide -g lowtide /var/lib/lowtide/spool
COPY --from=build /opt/lowtide /opt/lowtide
ENV PATH=/opt/lowtide/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LOWTIDE_SPOOL_URL=/var/lib/lowtide/spool
USER 10001
WORKDIR /home/lowtide
# SIGTERM stops a worker warmly: it finishes what it holds.
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "lowtide_worker", "worker"]
