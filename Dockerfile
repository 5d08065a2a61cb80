# docker build -t stylegate .        then, where pictures/ and brand/ lie:
# docker run --rm -v "$PWD:/lot" -u "$(id -u):$(id -g)" stylegate gate images=pictures references=./brand out=verdicts
FROM python:3.12-slim

# pip reads it: with PyTorch's index of builds for CPUs the image holds no CUDA libraries
ARG PIP_EXTRA_INDEX_URL

WORKDIR /opt/stylegate

# What is installed changes seldom, the code often: each in layers of its own.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > /tmp/wanted.txt \
    && pip install --no-cache-dir -c constraints.txt -r /tmp/wanted.txt \
    && rm /tmp/wanted.txt

COPY conf conf
COPY data data
COPY checkpoints checkpoints
COPY stylegate stylegate
COPY eval eval
COPY train train
RUN pip install --no-cache-dir --no-deps -e . && python -m compileall -q stylegate eval train

# Everything that is made or fetched lies in /state, which any user may write: `docker run -u` needs no account here.
ENV STYLEGATE_HOME=/state \
    HOME=/state \
    XDG_CACHE_HOME=/state/.cache \
    HF_HOME=/state/.cache/huggingface \
    TORCH_HOME=/state/.cache/torch \
    TORCHINDUCTOR_CACHE_DIR=/state/.cache/torchinductor \
    PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 1000 --no-create-home --home-dir /state --shell /usr/sbin/nologin gate && install -d -m 1777 /state
VOLUME /state
USER 1000

WORKDIR /lot
ENTRYPOINT ["stylegate"]
CMD ["--help"]
