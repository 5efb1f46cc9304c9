/** The port of the egress container, on the control network alone, behind which lies the broker of `broker: {url}`. */
export const RELAY_PORT = 6379
