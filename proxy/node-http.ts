/**
 * `node:http`, without the names that an `import` would read. One of those is `WebSocket`, and to read it loads a second
 * HTTP client, which comes with Node: 14 MB, and more time than all of our own modules take.
 */
export const http = process.getBuiltinModule('node:http')
