# The gateway in a container. First a key, then the gateway: it refuses a public address while there is none.
#
#   docker build -t conclave .
#   docker run --rm -v conclave-state:/var/lib/conclave conclave keys create --name me
#   docker run -p 127.0.0.1:8080:8080 -v conclave-state:/var/lib/conclave --read-only --tmpfs /tmp conclave
#
# `docker build --build-arg EXTRAS=providers,otlp -t conclave .` adds what the core does without: `providers` for experts
# through litellm, `otlp` for traces, `postgres` for a shared database.
#
# compose.yaml says the same with more locks on the door.

FROM python:3.11-slim AS build
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt setuptools
COPY pyproject.toml setup.py README.md LICENSE ./
COPY gateway gateway
COPY router router
COPY safety safety
COPY retrieval retrieval
COPY moe moe
COPY kernels kernels
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .
ARG EXTRAS=
RUN python -m venv --without-pip /opt/conclave \
    && pip --python /opt/conclave/bin/python install --no-cache-dir --constraint constraints.txt \
        "$(ls /wheels/conclave_gateway-*.whl)${EXTRAS:+[$EXTRAS]}"

FROM python:3.11-slim
RUN pip uninstall --yes --quiet --root-user-action=ignore pip setuptools wheel \
    && groupadd --gid 10001 conclave \
    && useradd --uid 10001 --gid conclave --no-create-home --home-dir /var/lib/conclave --shell /usr/sbin/nologin conclave \
    && install --directory --owner=conclave --group=conclave --mode=0700 /var/lib/conclave
COPY --from=build /opt/conclave /opt/conclave
ENV PATH=/opt/conclave/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CONCLAVE__SERVER__STATE_DIR=/var/lib/conclave
USER 10001:10001
WORKDIR /var/lib/conclave
VOLUME /var/lib/conclave
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["conclave"]
CMD ["serve", "--host", "0.0.0.0"]
