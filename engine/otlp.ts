/** OTLP/HTTP between our parts: agents and CLI → gateway → egress → the receiver of the project's `telemetry.endpoint`. */

/** OTLP/HTTP's registered port; egress listens on it in the control network. */
export const OTLP_PORT = 4318
export const OTLP_TRACES = '/v1/traces'
export const OTLP_PATHS: ReadonlySet<string> = new Set([OTLP_TRACES, '/v1/metrics', '/v1/logs'])
/** `egress` is a door (ExtraHosts) of the gateway. */
export const EGRESS_TRACES_URL: string = `http://egress:${OTLP_PORT}${OTLP_TRACES}`
