"""Whether Redis answers."""


async def redis_answers(url: str) -> str:
    """What is wrong with the Redis at `url`; "" when it answers within a second."""
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    redis = Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
    try:
        await redis.ping()
    except (RedisError, OSError):
        return "does not answer"
    finally:
        await redis.aclose()
    return ""
