/**
 * Which member of a destination's consumer group reads what: all partitions of a Unit go to one member, and a
 * member keeps what it had, because moving a Unit means reading its open Window again.
 */
import kafkajs, { type GroupMember, type GroupMemberAssignment, type PartitionAssigner } from 'kafkajs';
import type { SinkKind } from '../connector/sink.ts';
import { splitTopic } from '../publish/record-format.ts';

const { MemberAssignment, MemberMetadata } = kafkajs.AssignerProtocol;

interface Member {
  id: string;
  subscribed: ReadonlySet<string>;
  owned: ReadonlySet<string>;
}

/** Topic to the member that reads all its partitions; topics that nobody may read yet are absent. */
export function assignTopics(
  unit: SinkKind['unit'],
  members: readonly Member[],
  topics: readonly string[],
): Map<string, string> {
  const sorted = [...members].sort((a, b) => (a.id < b.id ? -1 : 1));
  const assigned = new Map<string, string>();
  const readers = (topic: string) => sorted.filter((member) => member.subscribed.has(topic));
  if (unit === 'destination') {
    // The member that knows most topics, then the present owner: a Unit without one of its topics could not go on.
    const score = (member: Member) => topics.filter((topic) => member.subscribed.has(topic)).length;
    const best = sorted.reduce<Member | null>((chosen, member) => {
      if (!chosen) return member;
      const difference = score(member) - score(chosen) || member.owned.size - chosen.owned.size;
      return difference > 0 ? member : chosen;
    }, null);
    if (best) for (const topic of topics) if (best.subscribed.has(topic)) assigned.set(topic, best.id);
    return assigned;
  }
  const load = new Map(sorted.map(({ id }) => [id, 0]));
  const give = (topic: string, { id }: Member) => {
    assigned.set(topic, id);
    load.set(id, load.get(id)! + 1);
  };
  const all = new Set(topics);
  const tableOf = (topic: string) => splitTopic(topic, all).table;
  const ordered = topics.filter((topic) => tableOf(topic) === topic).sort();
  const fair = Math.ceil(ordered.length / Math.max(1, sorted.length));
  for (const topic of ordered) {
    const owner = readers(topic).find(({ id, owned }) => owned.has(topic) && load.get(id)! < fair);
    if (owner) give(topic, owner);
  }
  for (const topic of ordered) {
    if (assigned.has(topic)) continue;
    const least = readers(topic).sort((a, b) => load.get(a.id)! - load.get(b.id)!)[0];
    if (least) give(topic, least);
  }
  // To the table's reader, once it knows of them.
  for (const topic of topics) {
    const id = assigned.get(tableOf(topic));
    if (id !== undefined && readers(topic).some((member) => member.id === id)) assigned.set(topic, id);
  }
  return assigned;
}

/**
 * @param unit SinkKind.unit of the destination
 * @param ownedTopics what this member reads at the moment; told to the group's leader
 */
export function unitAssigner(
  unit: SinkKind['unit'],
  ownedTopics: () => readonly string[],
): PartitionAssigner {
  // Members of different kinds cannot be in one group: the protocol's name says how Units are cut.
  const name = `tidemark-${unit}-1`;
  return ({ cluster }) => ({
    name,
    version: 1,
    protocol: ({ topics }) => ({
      name,
      metadata: MemberMetadata.encode({
        version: 1,
        topics,
        userData: Buffer.from(JSON.stringify(ownedTopics())),
      }),
    }),
    assign: async ({ members, topics }) => {
      const assigned = assignTopics(unit, members.map(readMember), topics);
      return members.map(({ memberId }): GroupMemberAssignment => {
        const assignment: Record<string, number[]> = {};
        for (const [topic, id] of assigned) {
          if (id !== memberId) continue;
          const partitions = (
            cluster as unknown as { findTopicPartitionMetadata(topic: string): { partitionId: number }[] }
          ).findTopicPartitionMetadata(topic);
          assignment[topic] = partitions.map(({ partitionId }) => partitionId).sort((a, b) => a - b);
        }
        return {
          memberId,
          memberAssignment: MemberAssignment.encode({ version: 1, assignment, userData: Buffer.alloc(0) }),
        };
      });
    },
  });
}

function readMember({ memberId, memberMetadata }: GroupMember): Member {
  const metadata = MemberMetadata.decode(memberMetadata);
  let owned: unknown = [];
  try {
    owned = JSON.parse(metadata?.userData?.toString() || '[]');
  } catch {
    // Another version's user data: it merely counts as owning nothing.
  }
  return {
    id: memberId,
    subscribed: new Set(metadata?.topics ?? []),
    owned: new Set(Array.isArray(owned) ? owned.map(String) : []),
  };
}
