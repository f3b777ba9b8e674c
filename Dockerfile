# precast as one static binary, without a shell, not as root:
#   docker build -t precast .
#   docker run -p 8080:8080 -v precast:/data precast serve --data /data --addr :8080
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w" -o /precast ./cmd/precast && mkdir /data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /precast /precast
COPY --from=build --chown=65532:65532 /data /data
COPY --from=build --chown=65532:65532 --chmod=1777 /data /tmp
USER 65532:65532
ENV PRECAST_DATA=/data
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/precast"]
CMD ["serve", "--addr", ":8080"]
