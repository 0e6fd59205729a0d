# One image for workers, Flower and the emulator; the command decides which.
FROM python:3.12-slim AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY requirements-dev.txt pyproject.toml README.md LICENSE ./
COPY producer producer
COPY worker worker
COPY emulator emulator
COPY cli cli
# The pinned file constrains the versions, so that the image runs what the tests ran.
RUN grep -v -- '--hash' requirements-dev.txt | sed 's/ *\\$//' > constraints.txt \
    && python -m venv /opt/lowtide \
    && /opt/lowtide/bin/pip install --no-cache-dir -c constraints.txt ".[worker,vertex,emulator]"

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
