/** One Kafka node, broker and controller at once, from the jars that kafka/pom.xml pins. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Kafka, logLevel } from 'kafkajs';
import { type ClassArchive, classArchive, javaOptions } from './class-archive.ts';
import { ensureDownload } from './download.ts';
import type { Part, PartContext, ServerCommand } from './part.ts';
import { answersTcp } from './port-answers.ts';
import { loopback } from './ports.ts';
import { runProgram } from './program.ts';

const pom = join(import.meta.dirname, 'kafka', 'pom.xml');

/** What Kafka's own start script gives its JVM. */
const productionOptions = [
  '-Xms1g',
  '-Xmx1g',
  '-XX:+UseG1GC',
  '-XX:MaxGCPauseMillis=20',
  '-XX:InitiatingHeapOccupancyPercent=35',
  '-Djava.net.preferIPv4Stack=true',
  '-Djava.awt.headless=true',
];

const directMemory = '-XX:MaxDirectMemorySize=1g';

/** Kafka 4.3.1 in KRaft mode, plain text on the loopback address. */
export function kafkaPart({ layout, settings, prerequisites, log, fullSpeed }: PartContext): Part {
  const folder = join(layout.data, 'kafka');
  const logs = join(folder, 'logs');
  const propertiesFile = join(folder, 'server.properties');
  const loggingFile = join(folder, 'log4j2.properties');
  const { kafka: port, kafkaController: controllerPort } = settings.ports;
  let archive: ClassArchive | undefined;

  const prepare = async (): Promise<ServerCommand> => {
    const jars = await ensureDownload(
      layout.downloads,
      {
        name: 'kafka',
        pinFile: pom,
        announcement: 'Kafka 4.3.1 from Maven Central (55 MiB)',
        fill: fetchJars,
      },
      log,
    );
    await mkdir(folder, { recursive: true });
    await writeFile(propertiesFile, serverProperties(port, controllerPort, logs));
    await writeFile(loggingFile, loggingProperties);
    archive = classArchive('kafka', layout, jars, prerequisites.javaVersion);
    const logging = `-Dlog4j2.configurationFile=${loggingFile}`;
    const java = (heap: string, ...args: string[]) => [...javaOptions, `-Xmx${heap}`, logging, ...args];
    const classPath = join(jars, '*');
    if (!existsSync(join(logs, 'meta.properties'))) {
      log('formatting the Kafka storage');
      // The tool takes an id that begins with a dash for an option.
      let clusterId: string;
      do clusterId = randomBytes(16).toString('base64url');
      while (clusterId.startsWith('-'));
      const format = [
        'kafka.tools.StorageTool',
        'format',
        '--ignore-formatted',
        '-t',
        clusterId,
        '-c',
        propertiesFile,
      ];
      const remedy = `Remove ${folder} and start again.`;
      const tool = java('128m', ...archive.optionOfTool(), '-cp', classPath, ...format);
      await runProgram(prerequisites.java, tool, { remedy });
    }
    // 384 MiB: 200 MiB are in use when idle, and a 64 MiB row is in memory twice while it is appended. Beside it each
    // network thread keeps a buffer for every size of large request that it ever read.
    const main = ['-cp', classPath, 'kafka.Kafka', propertiesFile];
    const args = fullSpeed
      ? [...productionOptions, logging, ...main]
      : java('384m', directMemory, archive.option(), ...main);
    return { file: prerequisites.java, args, cwd: folder };
  };

  return {
    name: 'kafka',
    title: 'Kafka 4.3.1',
    mark: propertiesFile,
    stopSignal: 'SIGTERM',
    stopTimeoutMs: 30_000,
    prepare,
    ready: () => describeCluster(port),
    // A killed broker's lock on the log folder goes with its process, which may take a moment.
    startMayBeRetried: (text) => /Failed to acquire lock on file/.test(text),
    afterStop: async () => archive?.keep(),
    environment: () => ({ TIDEMARK_KAFKA_BROKERS: `${loopback}:${port}` }),
  };
}

async function fetchJars(folder: string): Promise<void> {
  const args = ['-q', '-B', '-f', pom, 'dependency:copy-dependencies', '-DincludeScope=runtime'];
  const remedy = 'Maven must reach Maven Central (or the mirror in its settings.xml); then start again.';
  await runProgram('mvn', [...args, `-DoutputDirectory=${folder}`], { remedy });
}

function serverProperties(port: number, controllerPort: number, logs: string): string {
  const properties = {
    'process.roles': 'broker,controller',
    'node.id': 1,
    'controller.quorum.voters': `1@${loopback}:${controllerPort}`,
    'controller.listener.names': 'CONTROLLER',
    listeners: `CLIENT://${loopback}:${port},CONTROLLER://${loopback}:${controllerPort}`,
    'advertised.listeners': `CLIENT://${loopback}:${port}`,
    'listener.security.protocol.map': 'CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'inter.broker.listener.name': 'CLIENT',
    'log.dirs': logs,
    // One node holds every copy.
    'default.replication.factor': 1,
    'min.insync.replicas': 1,
    'offsets.topic.replication.factor': 1,
    'offsets.topic.num.partitions': 4,
    'transaction.state.log.replication.factor': 1,
    'transaction.state.log.min.isr': 1,
    'transaction.state.log.num.partitions': 4,
    'share.coordinator.state.topic.replication.factor': 1,
    'share.coordinator.state.topic.min.isr': 1,
    'share.coordinator.state.topic.num.partitions': 1,
    // Topics are made on purpose, with their settings.
    'auto.create.topics.enable': false,
    // No waiting for further members that will not come, and short sessions for tests of failing workers.
    'group.initial.rebalance.delay.ms': 0,
    'group.min.session.timeout.ms': 1_000,
    // A killed broker may come back only when its registration has expired; by default that takes 9 s.
    'broker.session.timeout.ms': 2_000,
    'broker.heartbeat.interval.ms': 500,
    // A 64 MiB row in a batch with others.
    'socket.request.max.bytes': 134_217_728,
    // Smaller than a production broker's: threads, and the cleaner's buffer (128 MiB) in a 384 MiB heap.
    'num.network.threads': 2,
    'num.io.threads': 4,
    'background.threads': 2,
    'log.cleaner.dedupe.buffer.size': 16_777_216,
  };
  return `${Object.entries(properties)
    .map(([name, value]) => `${name}=${value}`)
    .join('\n')}\n`;
}

const loggingProperties = `status=warn
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %m (%c{1})%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
`;

async function describeCluster(port: number): Promise<void> {
  // A client against a closed port costs kafkajs a retry; a bare connection tells sooner.
  await answersTcp(port);
  const kafka = new Kafka({
    clientId: 'tidemark-stack',
    brokers: [`${loopback}:${port}`],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 2_000,
    requestTimeout: 5_000,
    retry: { retries: 0 },
  });
  const admin = kafka.admin();
  try {
    await admin.connect();
    const { brokers } = await admin.describeCluster();
    if (brokers.length === 0) throw new Error('no broker has registered yet');
    await admin.listTopics();
  } finally {
    await admin.disconnect();
  }
}
