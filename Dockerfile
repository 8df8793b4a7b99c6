# The server of a memory, with PyTorch's CPU build. See docs/container.md; linted, not built, where it is developed.
FROM python:3.11-slim-bookworm AS build

ENV UV_TORCH_BACKEND=cpu UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE NOTICE ./
COPY src ./src
RUN python -m venv /opt/harmonia \
    && uv pip install --no-cache --python /opt/harmonia/bin/python -c requirements.lock '.[server]'

FROM python:3.11-slim-bookworm

COPY --from=build /opt/harmonia /opt/harmonia
COPY LICENSE NOTICE /usr/share/doc/harmonia/
ENV PATH=/opt/harmonia/bin:$PATH HARMONIA_MEMORY=/data/memory HF_HOME=/data/models PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --create-home harmonia \
    && mkdir /data \
    && chown harmonia:harmonia /data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8765/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["harmonia"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8765", "--keys", "/data/keys.json"]
