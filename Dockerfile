# syntax=docker/dockerfile:1
# Two stages: compile with everything, ship compiled JavaScript with production dependencies alone.
FROM node:24.21.0-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY . .
RUN npm run build
RUN npm prune --omit=dev --omit=optional

FROM node:24.21.0-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /src/package.json ./
COPY --from=build /src/node_modules ./node_modules
COPY --from=build /src/dist ./dist
# A start leaves beside the program what it compiled, for the next. Here it is left once, by the same user with the same flags
# as of every start, and is nobody's to write after that.
RUN install -d -o 65532 -g 65532 dist/.compiled
USER 65532:65532
RUN node --enable-source-maps --max-semi-space-size=4 --disable-proto=delete dist/cli/main.js --help
RUN node --enable-source-maps --max-semi-space-size=4 --disable-proto=delete dist/cli/main.js dev --demo
USER 0:0
RUN chown -R 0:0 dist/.compiled
# Numeric, so that runAsNonRoot can be checked; the agent's container must run as another user.
USER 65532:65532
# Works with a read-only root file system: it writes to the audit file of the configuration and nowhere else.
ENTRYPOINT ["node", "--enable-source-maps", "--max-semi-space-size=4", "--disable-proto=delete", "dist/cli/main.js"]
CMD ["run", "-c", "/etc/chaperone/chaperone.yaml"]
EXPOSE 15080 15081
