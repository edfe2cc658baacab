"""Short leases on long errands: renewed while the work goes on, so that a dead worker's errand comes back soon."""

from datetime import timedelta

from libs.common.database import Transaction

RENEWAL = 3.0
LASTS = timedelta(seconds=12)
RENEW = """
UPDATE patcher.errands SET lease_expire_time = :until WHERE id = :id AND lease_token = :token AND state = 'pending'
"""


async def renew(tx: Transaction, errand: str, token: int) -> bool:
    """Keeps a lease for a while longer; False when it was lost."""
    return bool(await tx.run(RENEW, id=errand, token=token, until=tx.now + LASTS))
