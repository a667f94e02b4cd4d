/** The calling domain, in any argument that names a domain (DOMID_SELF in xen/include/public/xen.h). */
export const DOMID_SELF = 0x7ff0;

/** The domain that back ends claim to live in. It is the host itself; no guest runs there. */
export const BACKEND_DOMAIN = 0;

/** Whom a guest means by a domain id: itself, the host's back ends, or a domain that it has no business with. */
export type DomainMeant = 'self' | 'host' | 'unknown';

/** @param id domid_t of a guest's argument; `own` the id of the guest that passed it */
export function domainMeant(id: number, own: number): DomainMeant {
  if (id === DOMID_SELF || id === own) return 'self';
  return id === BACKEND_DOMAIN ? 'host' : 'unknown';
}
