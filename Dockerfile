# docker build -t reasonrank . && docker run -p 8888:8888 reasonrank
FROM python:3.11-bookworm
RUN useradd --create-home reader && mkdir /reasonrank && chown reader /reasonrank
USER reader
WORKDIR /reasonrank
COPY --chown=reader . .
RUN make setup
CMD [".venv/bin/jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks/00_overview.ipynb"]
