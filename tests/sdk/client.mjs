// A program of the JavaScript client's environment: `send URL` sends events, `ask URL` prints what it is answered.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(pathToFileURL(process.cwd() + '/package.json'))
const { OpenMeter } = await import(pathToFileURL(require.resolve('@openmeter/sdk')))
const [action, url] = process.argv.slice(2)
const client = new OpenMeter({ baseUrl: url })
const now = new Date()
now.setUTCMinutes(0, 0, 0)
const start = new Date(now.getTime() - 2 * 3600 * 1000)

if (action === 'send') {
  const times = [0, 1, 61].map((minutes) => new Date(start.getTime() + minutes * 60000))
  await client.events.ingest(times.map((time) => ({ type: 'call', subject: 'node', time, data: { bytes: 0.5, region: 'eu' } })))
  await client.events.ingest({ type: 'call', subject: 'node', time: start, data: { bytes: '2.000000001', region: 'us' } })
} else {
  const range = { from: start, to: now }
  const total = await client.meters.query('calls', { ...range, subject: ['node'] })
  const hourly = await client.meters.query('bytes', { ...range, windowSize: 'HOUR', groupBy: ['region'] })
  let failure
  try {
    await client.meters.query('nothing')
  } catch (error) {
    failure = [error.constructor.name, error.status, error.message]
  }
  console.log(JSON.stringify({
    meters: (await client.meters.list()).map((meter) => meter.slug),
    total: total.data.map((row) => row.value),
    hourly: hourly.data.map((row) => [row.value, row.groupBy.region]),
    events: (await client.events.list({ subject: 'node' })).length,
    failure,
  }))
}
