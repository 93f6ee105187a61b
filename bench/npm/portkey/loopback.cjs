// For `node -r`: a server that names no address listens on 127.0.0.1 only, not on every interface.
const { Server } = require('node:net');
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, host, ...rest) {
  if (typeof port !== 'number') return listen.call(this, port, host, ...rest);
  if (typeof host !== 'string') return listen.call(this, port, '127.0.0.1', host, ...rest);
  return listen.call(this, port, host || '127.0.0.1', ...rest);
};
